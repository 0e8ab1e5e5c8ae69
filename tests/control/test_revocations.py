"""Revocation lists are whole, signed by whom they name, and there for every root; else nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.control.certs_dev import Authority
from gateway.control.revocations import Revocations
from gateway.proxy.revocation import marks

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ONE, OTHER = Authority.create("one", NOW), Authority.create("other", NOW)
ROOTS = [ONE.certificate, OTHER.certificate]


def signed(
    signer: Authority,
    serials: Sequence[int] = (),
    *,
    issuer: Authority | None = None,
    begins: timedelta = -timedelta(hours=1),
    ends: timedelta = timedelta(hours=1),
    extension: x509.ExtensionType | None = None,
) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder().issuer_name((issuer or signer).certificate.subject)
    builder = builder.last_update(NOW + begins).next_update(NOW + ends)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW)
        builder = builder.add_revoked_certificate(entry.build())
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(signer.key, hashes.SHA256())


def load(folder: Path, *contents: bytes, roots: Sequence[x509.Certificate] = ROOTS) -> Revocations:
    files = []
    for number, content in enumerate(contents):
        files.append(folder / f"{number}.crl")
        files[-1].write_bytes(content)
    return Revocations.load(files, roots, NOW)


def pem(*lists: x509.CertificateRevocationList) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in lists)


def der_of(certificate: bytes) -> bytes:
    return x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)


def test_a_certificate_is_found_by_its_issuer_and_its_number(tmp_path: Path) -> None:
    mine, its = (authority.issue(NOW, uris=["spiffe://mesh.local/a"])[0] for authority in (ONE, OTHER))
    number = x509.load_pem_x509_certificate(mine).serial_number
    found = load(tmp_path, pem(signed(ONE, [number]), signed(OTHER)))
    assert not found.revoked.isdisjoint(marks([der_of(mine)]))
    assert found.revoked.isdisjoint(marks([der_of(its)]))
    assert [each.entries for each in found.lists] == [1, 0]
    assert not found.warnings(NOW)
    elsewhere = load(tmp_path, pem(signed(ONE)), signed(OTHER, [number]).public_bytes(Encoding.DER))
    assert elsewhere.revoked.isdisjoint(marks([der_of(mine)]))


def test_each_root_that_still_vouches_needs_a_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the root CN=other has no list"):
        load(tmp_path, pem(signed(ONE)))
    ended = Authority.create("ended", NOW - timedelta(days=60)).certificate
    load(tmp_path, pem(signed(ONE)), roots=[ONE.certificate, ended])


def test_a_list_of_an_intermediate_is_taken_and_told(tmp_path: Path) -> None:
    found = load(tmp_path, pem(signed(ONE), signed(OTHER, [1])), roots=[ONE.certificate])
    assert "CN=other is no root of the trust bundle" in found.warnings(NOW)[0]


def test_a_list_that_ends_is_told_from_then_on(tmp_path: Path) -> None:
    found = load(tmp_path, pem(signed(ONE), signed(OTHER)))
    assert not found.warnings(NOW)
    assert len(found.warnings(NOW + timedelta(hours=2))) == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no revocation list"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "no revocation list"),
        (pem(signed(ONE))[:200], "no revocation list"),
        (ONE.certificate.public_bytes(Encoding.PEM), "no revocation list"),
        (pem(signed(OTHER, issuer=ONE)), "did not sign this list"),
        (pem(signed(ONE, begins=timedelta(minutes=10))), "begins only at"),
        (pem(signed(ONE, extension=x509.DeltaCRLIndicator(1))), "a delta list"),
        (b"x" * (16 * 2**20 + 1), "larger than"),
    ],
    ids=["empty", "nonsense", "half", "a certificate", "forged", "of tomorrow", "delta", "huge"],
)
def test_what_is_no_whole_list_of_a_root_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        load(tmp_path, content, roots=[ONE.certificate])
