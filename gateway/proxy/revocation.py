"""How an open connection and a revocation list find each other: by marks, 16 bytes for a certificate.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from cryptography import x509

REVOKED = "certificate-revoked"
"""The reason in metrics."""


def mark(issuer: x509.Name, serial: int) -> bytes:
    """What stands for the certificate `serial` of `issuer` (RFC 5280 section 4.1.2.2: the two are unique together)."""
    # Names are the same whatever their case and white space (RFC 5280 section 7.1).
    name = " ".join(issuer.rfc4514_string().casefold().split())
    return sha256(b"%x:%s" % (serial, name.encode())).digest()[:16]


def marks(chain: Iterable[bytes]) -> frozenset[bytes]:
    """The marks of certificates (DER)."""
    certificates = map(x509.load_der_x509_certificate, chain)
    return frozenset(mark(certificate.issuer, certificate.serial_number) for certificate in certificates)
