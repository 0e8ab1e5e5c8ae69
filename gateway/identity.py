"""Who is asking: SPIFFE ids, the principal behind a connection, and patterns over both.  Pure.

Enters: certificates and pattern text.  Leaves: `Principal` and `PrincipalPattern` values.
Knows nothing of sockets, policies or packets.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NewType

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

SpiffeId = NewType("SpiffeId", str)

# SPIFFE-ID section 2: the trust domain is lower case; path segments are non-empty and never dots alone.
_TRUST_DOMAIN = r"[a-z0-9._-]{1,255}"
_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+"
_ID = re.compile(rf"spiffe://(?P<domain>{_TRUST_DOMAIN})(?:/{_SEGMENT})*")
_PATTERN = re.compile(rf"spiffe://{_TRUST_DOMAIN}(?:/(?!\.{{1,2}}(?:/|$))[A-Za-z0-9._*-]+)*")
_MAX_ID_BYTES = 2048
_CROSSING = "\0"
"""Stands for the ``**`` of one pattern when another is asked whether it includes it; no id has this character."""


class IdentityError(ValueError):
    """A certificate or a text that names no usable SPIFFE identity; the message says why."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller of a connection: its SPIFFE id and when the proof of it ends."""

    id: SpiffeId
    not_after: datetime | None = None
    """End of the certificate's validity (UTC); ``None`` for an assumed principal."""
    certificate: bytes = field(default=b"", compare=False, repr=False)
    """The certificate (DER), empty for an assumed principal."""

    @property
    def trust_domain(self) -> str:
        """The part of the id between ``spiffe://`` and the path."""
        return self.id[len("spiffe://") :].partition("/")[0]

    @property
    def thumbprint(self) -> str:
        """Of the certificate; see `thumbprint_of`."""
        return thumbprint_of(self.certificate)


@dataclass(frozen=True, slots=True)
class PrincipalPattern:
    """A glob over SPIFFE ids: ``*`` stays within a path segment, ``**`` crosses segments.

    A pattern of a bare trust domain (``spiffe://mesh.local``) covers everyone in it.
    """

    text: str

    def matches(self, spiffe_id: str) -> bool:
        """Whether `spiffe_id` is covered."""
        return _principal_regex(self.text).fullmatch(spiffe_id) is not None

    @property
    def literal(self) -> bool:
        """Whether it covers one id only, its own text."""
        return "*" not in self.text and not self._is_trust_domain

    def includes(self, other: PrincipalPattern) -> bool:
        """Whether every id that `other` covers is covered.

        Each wildcard of `other` is read as one character that only an equally wide wildcard takes.
        """
        text = other.text.replace("**", _CROSSING)
        texts = [text, f"{text}/{_CROSSING}"] if other._is_trust_domain else [text]
        return all(_principal_regex(self.text).fullmatch(each) for each in texts)

    @property
    def _is_trust_domain(self) -> bool:
        return self.text.count("/") == 2


@lru_cache(maxsize=4_096)
def thumbprint_of(certificate: bytes) -> str:
    """The SHA-256 thumbprint of a certificate (DER), in base64url: ``x5t#S256`` (RFC 7515 section 4.1.8)."""
    return urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode("ascii")


def parse_spiffe_id(text: str) -> SpiffeId:
    """Check `text` against SPIFFE-ID section 2 and return it typed.

    Raises:
        IdentityError: it is not a SPIFFE id.

    """
    if len(text) > _MAX_ID_BYTES or _ID.fullmatch(text) is None:
        raise IdentityError(f"{text[:80]!r} is not a SPIFFE id (spiffe://trust-domain/path)")
    return SpiffeId(text)


def parse_principal_pattern(text: str) -> PrincipalPattern:
    """Read a glob over SPIFFE ids; the trust domain must be spelled out.

    Raises:
        IdentityError: it is not a SPIFFE id with ``*`` or ``**`` in its path.

    """
    if _PATTERN.fullmatch(text) is None:
        raise IdentityError(
            f"{text[:80]!r} is not a SPIFFE pattern: write spiffe://trust-domain/path, with * or ** in the path only"
        )
    return PrincipalPattern(text)


# Compiled when first asked: most of thousands of patterns never are, and compiling is what takes long.
@lru_cache(maxsize=16_384)
def _principal_regex(pattern: str) -> re.Pattern[str]:
    translated = "".join(
        {"**": ".*", "*": f"[^/{_CROSSING}]*"}.get(piece, re.escape(piece)) for piece in re.split(r"(\*\*|\*)", pattern)
    )
    if pattern.count("/") == 2:  # a bare trust domain
        translated += "(?:/.*)?"
    return re.compile(translated)


def principal_from_certificate(der: bytes) -> Principal:
    """The principal of an X.509-SVID, whose chain the TLS layer has already verified.

    X509-SVID section 2: an SVID has exactly one URI SAN, its SPIFFE id.

    Raises:
        IdentityError: there is no URI SAN, there are several, or it is not a SPIFFE id.

    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        raise IdentityError("the certificate has no URI SAN, so it names no SPIFFE id") from None
    except ValueError as error:
        raise IdentityError(f"the certificate cannot be read: {error}") from None
    if not isinstance(names, x509.SubjectAlternativeName):  # pragma: no cover - the OID decides the type
        raise IdentityError("the certificate's subject alternative names cannot be read")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        count = "no URI SAN" if not uris else f"{len(uris)} URI SANs"
        raise IdentityError(f"the certificate has {count}; an SVID has exactly one, its SPIFFE id")
    return Principal(parse_spiffe_id(uris[0]), certificate.not_valid_after_utc, der)
