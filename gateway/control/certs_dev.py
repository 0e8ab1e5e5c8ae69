"""A throw-away CA and SVIDs, for development, demos and tests.  Never for production."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 30
LEAF_DAYS = 7
_LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


class Authority:
    """A certificate authority whose key is at hand."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @classmethod
    def create(cls, name: str, now: datetime, *, dns_constraint: str | None = None) -> Authority:
        """A new self-signed CA; `dns_constraint` limits the names that it can vouch for."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, subject, key, now, CA_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(ca=True), critical=True)
        if dns_constraint is not None:
            builder = builder.add_extension(x509.NameConstraints([x509.DNSName(dns_constraint)], None), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Authority:
        """A CA from PEM files.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file holds something else, or the key is another one's.

        """
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key}: expected an EC key")
        own = x509.load_pem_x509_certificate(certificate.read_bytes())
        if own.public_key() != loaded.public_key():
            raise ValueError(f"{key}: not the key of {certificate}")
        return cls(own, loaded)

    def issue(
        self, now: datetime, *, uris: Sequence[str] = (), dns: Sequence[str] = (), days: float = LEAF_DAYS
    ) -> tuple[bytes, bytes]:
        """A leaf for client and server use: certificate PEM and key PEM; loopback addresses when it has a URI."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(name) for name in dns]
        if uris:
            names += [x509.IPAddress(address) for address in _LOOPBACK]
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "phoenixflight development")])
        builder = _builder(subject, self.certificate.subject, key, now, days)
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(ca=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)

    def write(self, folder: Path, name: str) -> None:
        """Write ``NAME.pem`` and ``NAME-key.pem``."""
        write_pair(folder, name, self.certificate.public_bytes(serialization.Encoding.PEM), _pem(self.key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5) if days > 0 else now + timedelta(days=days - 1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_pair(folder: Path, name: str, certificate: bytes, key: bytes) -> None:
    """Write a certificate and its key (mode 0600)."""
    (folder / f"{name}.pem").write_bytes(certificate)
    path = folder / f"{name}-key.pem"
    path.touch(mode=0o600)
    path.chmod(0o600)  # it may have been there before
    path.write_bytes(key)


def issue_dev_certificates(
    out: Path,
    *,
    trust_domain: str,
    svids: Mapping[str, str],
    now: datetime,
    days: float = LEAF_DAYS,
    force: bool = False,
) -> list[str]:
    """Make (or reuse) the CAs in `out` and issue the gateway's SVID and `svids`.

    Args:
        out: the folder, created if need be.
        trust_domain: such as ``mesh.local``.
        svids: file name to SPIFFE path, such as ``planner`` to ``/ns/agents/sa/planner``.
        now: the time of issue, UTC.
        days: validity of the leaves.
        force: make new CAs even where there are some; nothing that the old ones signed is trusted any more.

    Returns:
        The names written, each as ``NAME.pem`` and ``NAME-key.pem``.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a CA that is there has expired or is none, or an SVID would overwrite a CA or a key.

    """
    for name in svids:
        if name in ("ca", "connect-ca") or name.endswith("-key"):
            raise ValueError(f"an SVID cannot be called {name}: {name}.pem is another file's name")
    out.mkdir(parents=True, exist_ok=True)
    written: list[str] = []
    authorities: dict[str, Authority] = {}
    for name, title, constraint in (
        ("ca", f"{trust_domain} development CA", None),
        ("connect-ca", "flight.internal development CA", "flight.internal"),
    ):
        file = out / f"{name}.pem"
        if file.exists() and not force:
            authorities[name] = Authority.load(file, out / f"{name}-key.pem")
            end = authorities[name].certificate.not_valid_after_utc
            if end <= now:
                raise ValueError(f"{file} expired on {end:%Y-%m-%d}: make a new CA with --force")
        else:
            authorities[name] = Authority.create(title, now, dns_constraint=constraint)
            authorities[name].write(out, name)
            written.append(name)
    paths = {"gateway": "/ns/phoenixflight/sa/gateway", **svids}
    for name, path in paths.items():
        dns = ["localhost", "*.flight.internal"] if name == "gateway" else ["localhost"]
        pair = authorities["ca"].issue(now, uris=[f"spiffe://{trust_domain}{path}"], dns=dns, days=days)
        write_pair(out, name, *pair)
        written.append(name)
    return written
