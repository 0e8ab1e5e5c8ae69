"""The keys of the authority: one signs, all verify and are published.  Pure: files are read elsewhere."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import ECKey, OKPKey

from gateway.documents import DocumentError, Problem
from gateway.packet.jws import EnvelopeSignatureError, load_signing_key
from gateway.packet.keys import Algorithm, PublicKey, SigningKey, algorithm_of, make_signature, verifies

TYPE: Final = "flight+jwt"
"""The header's ``typ``: no JWT that was made for something else passes for a credential (RFC 8725 section 3.11)."""
MAX_KEYS: Final = 16
_JWA: Final = {Algorithm.ECDSA_P256_SHA256: "ES256", Algorithm.ED25519: "EdDSA"}


@dataclass(frozen=True, slots=True)
class AuthorityKey:
    """One of them."""

    kid: str
    """Its thumbprint (RFC 7638), so that nobody has to invent names."""
    algorithm: str
    """``ES256`` or ``EdDSA``, and no other."""
    jwk: dict[str, Any] = field(compare=False)
    """The public key (RFC 7517)."""
    private: SigningKey = field(repr=False, compare=False)
    public: PublicKey = field(repr=False, compare=False)
    header: bytes = field(repr=False, compare=False)
    """Of what it signs, in base64url."""

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`, as JWS has it (RFC 7518 section 3.4, RFC 8037)."""
        return make_signature(self.private, message)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` over `message` is this key's."""
        return verifies(self.public, signature, message)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All of them, the signing key first; never empty."""

    keys: tuple[AuthorityKey, ...]

    @property
    def signing(self) -> AuthorityKey:
        """The key that signs."""
        return self.keys[0]

    def find(self, kid: str) -> AuthorityKey | None:
        """The key called `kid`."""
        return next((key for key in self.keys if key.kid == kid), None)

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK Set (RFC 7517 section 5)."""
        return {"keys": [key.jwk for key in self.keys]}


def load_key_ring(files: Iterable[tuple[str, str]]) -> KeyRing:
    """The keys in `files`, each a path and its text: a private key in PEM, a JWK, or a JWK Set of private keys.

    Raises:
        DocumentError: with what is wrong with each file; nothing of a key is told.

    """
    problems: list[Problem] = []
    keys: dict[str, AuthorityKey] = {}
    for source, text in files:
        try:
            for key in map(_key, _each(text)):
                keys.setdefault(key.kid, key)
        except EnvelopeSignatureError as error:
            problems.append(Problem(source, 1, 1, f"no key of the authority: {error}"))
    if not problems and not 0 < len(keys) <= MAX_KEYS:
        problems.append(Problem(source, 1, 1, f"expected 1 to {MAX_KEYS} keys of the authority, found {len(keys)}"))
    if problems:
        raise DocumentError(problems)
    return KeyRing(tuple(keys.values()))


def _each(text: str) -> list[str]:
    """Each key of `text` as a text of its own."""
    if not text.lstrip().startswith("{"):
        return [text]
    try:
        content = json.loads(text)
    except ValueError as error:
        raise EnvelopeSignatureError(f"not JSON: {error}") from None
    if "keys" not in content:
        return [text]
    if not isinstance(content["keys"], list):
        raise EnvelopeSignatureError("the keys of a JWK Set are a list")
    return [json.dumps(each) for each in content["keys"]]


def _key(text: str) -> AuthorityKey:
    key = load_signing_key(text)
    if not isinstance(key, ECKey | OKPKey):
        raise EnvelopeSignatureError("a shared secret cannot be published; use a P-256 or Ed25519 key")
    private = key.private_key
    if not isinstance(private, EllipticCurvePrivateKey | Ed25519PrivateKey):
        raise EnvelopeSignatureError("use a P-256 or Ed25519 key")  # pragma: no cover - loading has seen to it
    kid = key.thumbprint()
    algorithm = _JWA[algorithm_of(private)]
    public = {name: value for name, value in key.as_dict(private=False).items() if name in ("kty", "crv", "x", "y")}
    return AuthorityKey(
        kid=kid,
        algorithm=algorithm,
        jwk={**public, "kid": kid, "alg": algorithm, "use": "sig"},
        private=private,
        public=private.public_key(),
        header=encoded(msgspec.json.encode({"alg": algorithm, "kid": kid, "typ": TYPE})),
    )


def encoded(octets: bytes) -> bytes:
    """`octets` in base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(octets).rstrip(b"=")
