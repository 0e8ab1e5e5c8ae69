"""Signatures over the heads of chains.  Pure."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gateway.identity import SpiffeId
from gateway.packet.keys import Key, algorithm_of, make_signature

_ID_DIGITS = 16
_NOBODY = SpiffeId("")


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, Ed25519 or P-256 (ES256), and what it is called in a chain."""

    keyid: str
    private: Ed25519PrivateKey | EllipticCurvePrivateKey = field(repr=False)

    def sign(self, text: bytes) -> str:
        """A signature over `text`, in base64; that of a P-256 key is r and s, side by side."""
        return b64encode(make_signature(self.private, text)).decode()


def load_signer(pem: bytes) -> Signer:
    """The private key in `pem`.

    Raises:
        ValueError: there is none that can be used.

    """
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a private key in PEM without a password: {error}") from None
    algorithm_of(private)
    assert isinstance(private, Ed25519PrivateKey | EllipticCurvePrivateKey)
    return Signer(_keyid(private.public_key()), private)


def load_verifier(pem: bytes) -> Key:
    """The public key in `pem`.

    Raises:
        ValueError: there is none that can be used.

    """
    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a public key in PEM: {error}") from None
    algorithm_of(public)
    assert isinstance(public, Ed25519PublicKey | EllipticCurvePublicKey)
    return Key(_keyid(public), _NOBODY, public)


def verifies(key: Key, signature: str, text: bytes) -> bool:
    """Whether `signature`, in base64, is one of the holder of `key` over `text`."""
    try:
        return key.verifies(b64decode(signature, validate=True), text)
    except ValueError:
        return False


def _keyid(public: Ed25519PublicKey | EllipticCurvePublicKey) -> str:
    return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:_ID_DIGITS]
