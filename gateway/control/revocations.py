"""Certificate revocation lists (RFC 5280 section 5): read, and held against the roots that sign them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.proxy.revocation import mark

MAX_LIST_BYTES = 16 * 2**20
_BEGIN, _END = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One list."""

    file: Path
    issuer: str
    """RFC 4514."""
    known: bool
    """A root of the trust bundle signed it."""
    entries: int
    begins: datetime
    """When it was made (UTC)."""
    ends: datetime | None
    """When the next one is due (UTC); a list that does not say so never ends."""

    def ended(self, now: datetime) -> bool:
        """Whether it is too old to vouch for anybody."""
        return self.ends is not None and self.ends <= now

    def status(self, now: datetime) -> dict[str, object]:
        """JSON values for ``/status``."""
        return {
            "file": str(self.file),
            "issuer": self.issuer,
            "entries": self.entries,
            "next_update": self.ends.isoformat() if self.ends is not None else None,
            "ended": self.ended(now),
        }


@dataclass(frozen=True, slots=True)
class Revocations:
    """The lists of one reading of the files."""

    lists: tuple[RevocationList, ...]
    revoked: frozenset[bytes]
    """The marks of all certificates that they name."""
    pem: bytes
    """All lists, as OpenSSL reads them."""

    @classmethod
    def load(cls, files: Iterable[Path], roots: Sequence[x509.Certificate], now: datetime) -> Revocations:
        """Read lists.

        A list that has ended is read: with it handshakes fail, but what it revokes stays revoked.
        One of an issuer that is no root is read, too: it may be that of an intermediate CA, which callers show.

        Args:
            files: each with one or more lists in PEM, or one in DER.
            roots: the trust bundle.
            now: UTC.

        Raises:
            OSError: a file cannot be read.
            ValueError: one is no list, is not what a root of its issuer's name signed, or a root has none.

        """
        lists: list[RevocationList] = []
        revoked: set[bytes] = set()
        pem: list[bytes] = []
        listed: set[int] = set()
        for file in files:
            for crl in _read(file):
                signers = _signers(crl, roots, file)
                listed |= signers
                lists.append(
                    RevocationList(
                        file,
                        crl.issuer.rfc4514_string(),
                        bool(signers),
                        len(crl),
                        crl.last_update_utc,
                        _checked_end(crl, file, now),
                    )
                )
                revoked |= {mark(crl.issuer, entry.serial_number) for entry in crl}
                pem.append(crl.public_bytes(Encoding.PEM))
        for number, root in enumerate(roots):
            if number not in listed and root.not_valid_after_utc > now:
                raise ValueError(
                    f"the root {root.subject.rfc4514_string()} has no list, and nobody it vouches for "
                    "would get in; add its list, which may be empty, to crl"
                )
        return cls(tuple(lists), frozenset(revoked), b"".join(pem))

    def warnings(self, now: datetime) -> tuple[str, ...]:
        """What is wrong at `now`, for a person."""
        ended = (
            f"{each.file}: the list of {each.issuer} ended at {each.ends:%Y-%m-%d %H:%M} UTC, "
            "and nobody it vouches for gets in until there is a newer one"
            for each in self.lists
            if each.ended(now)
        )
        strange = (
            f"{each.file}: {each.issuer} is no root of the trust bundle, so its list counts "
            "only where a peer shows that CA"
            for each in self.lists
            if not each.known
        )
        return tuple(chain(ended, strange))


def _read(file: Path) -> list[x509.CertificateRevocationList]:
    with file.open("rb") as opened:
        content = opened.read(MAX_LIST_BYTES + 1)
    if len(content) > MAX_LIST_BYTES:
        raise ValueError(f"{file} is larger than {MAX_LIST_BYTES} bytes")
    try:
        if _BEGIN not in content:
            return [x509.load_der_x509_crl(content)]
        pieces = content.split(_BEGIN)[1:]
        return [x509.load_pem_x509_crl(_BEGIN + piece.partition(_END)[0] + _END + b"\n") for piece in pieces]
    except ValueError as error:
        raise ValueError(f"{file} is no revocation list in PEM or DER: {error}") from None


def _signers(crl: x509.CertificateRevocationList, roots: Sequence[x509.Certificate], file: Path) -> set[int]:
    """Which of `roots` signed it, by their place; a CA that was renewed with its key is there twice."""
    named = {number for number, root in enumerate(roots) if root.subject == crl.issuer}
    signers = {number for number in named if _signed(crl, roots[number])}
    if named and not signers:
        raise ValueError(f"{file}: the root {crl.issuer.rfc4514_string()} did not sign this list")
    return signers


def _signed(crl: x509.CertificateRevocationList, root: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]  # another kind of key is a TypeError
    except (InvalidSignature, UnsupportedAlgorithm, TypeError):
        return False


def _checked_end(crl: x509.CertificateRevocationList, file: Path, now: datetime) -> datetime | None:
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator) or (
            isinstance(value, x509.IssuingDistributionPoint) and value.indirect_crl
        ):
            raise ValueError(f"{file} is a delta list or an indirect one; the gateway takes whole lists of one issuer")
    if crl.last_update_utc > now:
        raise ValueError(f"{file} begins only at {crl.last_update_utc:%Y-%m-%d %H:%M} UTC")
    return crl.next_update_utc
