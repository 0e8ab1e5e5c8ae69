"""Keys of packet signatures: whose they are, and what they verify or sign (RFC 9421 section 3.3).  Pure.

A key comes from the key set that the operator keeps, or from the certificate that the caller has shown.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from gateway.identity import Principal, SpiffeId

MIN_SECRET_BYTES = 32
"""Of an HMAC key: as long as what SHA-256 makes (RFC 7518 section 3.2)."""
MAX_REMEMBERED_CERTIFICATES = 4096

_USABLE = "use an Ed25519 or a P-256 key; RSA and other curves are not usable here"
_P256_BYTES = 32
_ECDSA = ec.ECDSA(hashes.SHA256())


class Algorithm(Enum):
    """Signature algorithms, by their registered names (RFC 9421 section 6.2.2)."""

    ED25519 = "ed25519"
    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
    HMAC_SHA256 = "hmac-sha256"


PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey | bytes
"""What verifies; `bytes` is a secret that both sides share."""
SigningKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | bytes
"""What signs; `bytes` is a secret that both sides share."""


class UnusableKeyError(ValueError):
    """A key that no algorithm here can use; the message says why, and nothing of the key."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that verifies signatures, bound to the principal who holds it."""

    keyid: str
    principal: SpiffeId
    material: PublicKey = field(repr=False, compare=False)
    algorithm: Algorithm = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "algorithm", algorithm_of(self.material))

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is one that this key's holder made over `message`."""
        material = self.material
        if isinstance(material, bytes):
            return hmac.compare_digest(signature, hmac.digest(material, message, "sha256"))
        try:
            if isinstance(material, Ed25519PublicKey):
                material.verify(signature, message)
            else:
                # RFC 9421 section 3.3.4: r and s, side by side; OpenSSL wants them in DER.
                if len(signature) != 2 * _P256_BYTES:
                    return False
                r, s = int.from_bytes(signature[:_P256_BYTES]), int.from_bytes(signature[_P256_BYTES:])
                material.verify(encode_dss_signature(r, s), message, _ECDSA)
        except InvalidSignature:
            return False
        return True


def algorithm_of(key: object) -> Algorithm:
    """The one algorithm that `key` is for.

    Raises:
        UnusableKeyError: there is none.

    """
    match key:
        case bytes() if len(key) >= MIN_SECRET_BYTES:
            return Algorithm.HMAC_SHA256
        case bytes():
            raise UnusableKeyError(f"a shared secret needs {MIN_SECRET_BYTES} bytes or more, not {len(key)}")
        case Ed25519PublicKey() | Ed25519PrivateKey():
            return Algorithm.ED25519
        case ec.EllipticCurvePublicKey() | ec.EllipticCurvePrivateKey() if isinstance(key.curve, ec.SECP256R1):
            return Algorithm.ECDSA_P256_SHA256
    raise UnusableKeyError(_USABLE)


def make_signature(key: SigningKey, message: bytes) -> bytes:
    """What `key` signs `message` with.

    Raises:
        UnusableKeyError: no algorithm here can use the key.

    """
    algorithm_of(key)
    if isinstance(key, bytes):
        return hmac.digest(key, message, "sha256")
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    r, s = decode_dss_signature(key.sign(message, _ECDSA))
    return r.to_bytes(_P256_BYTES) + s.to_bytes(_P256_BYTES)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys that signatures are verified with, by key id."""

    keys: Mapping[str, Key] = field(default_factory=lambda: MappingProxyType({}))

    def find(self, keyid: str, principal: Principal | None) -> Key | None:
        """The key called `keyid`: one of the set, else that of the certificate which `principal` has shown.

        A certificate's key answers to its SPIFFE id and to its thumbprint (``x5t#S256``, RFC 7515 section 4.1.8).

        Raises:
            UnusableKeyError: it is the certificate's key, and of a kind that cannot sign packets.

        """
        key = self.keys.get(keyid)
        if key is not None or principal is None or not principal.certificate:
            return key
        shown = _certificate_keys(principal.certificate, principal.id)
        if keyid not in shown:
            return None
        if shown[keyid] is None:
            raise UnusableKeyError(f"the certificate's key cannot sign packets; {_USABLE}")
        return shown[keyid]


@lru_cache(maxsize=MAX_REMEMBERED_CERTIFICATES)
def thumbprint(certificate: bytes) -> str:
    """The ``x5t#S256`` of a certificate (DER; RFC 7515 section 4.1.8)."""
    return urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode("ascii")


@lru_cache(maxsize=MAX_REMEMBERED_CERTIFICATES)
def _certificate_keys(certificate: bytes, principal: SpiffeId) -> Mapping[str, Key | None]:
    """A certificate's key by each of its two names; ``None`` when it cannot sign packets."""
    shown = thumbprint(certificate)
    try:
        material = x509.load_der_x509_certificate(certificate).public_key()
        algorithm_of(material)
    except (ValueError, UnsupportedAlgorithm):
        return {principal: None, shown: None}
    usable = cast(PublicKey, material)
    return {keyid: Key(keyid, principal, usable) for keyid in (principal, shown)}
