"""From the text of a JWK Set (RFC 7517) to a `KeySet`; all of it, or none.

Each key has, besides what its type asks for, a ``kid`` and a ``sub``: the SPIFFE id of the principal whose key it is
(RFC 7517 section 4 lets a JWK have more members).  JSON is read by the YAML reader of `gateway.documents`, which tells
where a mistake stands.  Nothing that is told of a key repeats its material.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, PlainValidator, field_validator

from gateway.documents import DocumentError, ErrorAt, Problem, parse
from gateway.identity import IdentityError, SpiffeId, parse_spiffe_id
from gateway.packet.keys import Key, KeySet, PublicKey, UnusableKeyError, algorithm_of

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_KEYID = re.compile(r"[ -~]{1,255}")
_COORDINATE_BYTES = 32
# JWA names (RFC 7518 section 3.1, RFC 8037, RFC 9864); "alg" may be absent.
_ALGORITHMS = {"OKP": ("EdDSA", "Ed25519"), "EC": ("ES256",), "oct": ("HS256",)}
_CURVES = {"OKP": "Ed25519", "EC": "P-256"}


def load_keys(text: str, source: str) -> KeySet:
    """The keys of the JWK Set `text`; those for encryption (``"use": "enc"``) are passed over.

    Raises:
        DocumentError: with every problem found.

    """
    documents = parse(text, source)
    if len(documents) != 1:
        raise DocumentError([Problem(source, 1, 1, f"expected one JWK Set, found {len(documents)}")])
    found = documents[0].validate(_JwkSet)
    return KeySet({key.keyid: key for key in found.keys if key is not None})


def _key(jwk: object) -> Key | None:
    if not isinstance(jwk, dict):
        raise ValueError("expected a JSON object")
    if jwk.get("use") == "enc":
        return None
    kind = _text(jwk, "kty")
    if kind not in _ALGORITHMS:
        raise ErrorAt(f"{kind[:20]!r} is not usable here; expected 'OKP', 'EC' or 'oct'", "kty")
    if jwk.get("alg", _ALGORITHMS[kind][0]) not in _ALGORITHMS[kind]:
        raise ErrorAt(f"expected {' or '.join(map(repr, _ALGORITHMS[kind]))} for a key of type {kind}", "alg")
    if kind in _CURVES and _text(jwk, "crv") != _CURVES[kind]:
        raise ErrorAt(f"expected {_CURVES[kind]!r} for a key of type {kind}", "crv")
    keyid = _text(jwk, "kid")
    if _KEYID.fullmatch(keyid) is None:
        raise ErrorAt("expected 1 to 255 printable ASCII characters", "kid")
    return Key(keyid, _principal(jwk), _material(jwk, kind))


def _principal(jwk: dict[str, Any]) -> SpiffeId:
    try:
        return parse_spiffe_id(_text(jwk, "sub"))
    except IdentityError as error:
        raise ErrorAt(str(error), "sub") from None


def _material(jwk: dict[str, Any], kind: str) -> PublicKey:
    if kind == "oct":
        secret = _octets(jwk, "k")
        try:
            algorithm_of(secret)
        except UnusableKeyError as error:
            raise ErrorAt(str(error), "k") from None
        return secret
    if "d" in jwk:
        raise ErrorAt("a private key belongs to its holder alone: make a new one, and publish it without d", "d")
    x = _octets(jwk, "x", _COORDINATE_BYTES)
    if kind == "OKP":
        return Ed25519PublicKey.from_public_bytes(x)
    y = _octets(jwk, "y", _COORDINATE_BYTES)
    try:
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()).public_key()
    except ValueError:
        raise ErrorAt("x and y are no point of P-256", "x") from None


def _text(jwk: dict[str, Any], name: str) -> str:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise ErrorAt("expected text" if name in jwk else f"{name!r} is required", name)
    return value


def _octets(jwk: dict[str, Any], name: str, size: int | None = None) -> bytes:
    text = _text(jwk, name)
    try:
        if _BASE64URL.fullmatch(text) is None:
            raise ValueError
        octets = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:  # binascii.Error is one
        raise ErrorAt("expected base64url without padding (RFC 7515 section 2)", name) from None
    if size is not None and len(octets) != size:
        raise ErrorAt(f"expected {size} bytes, found {len(octets)}", name)
    return octets


class _JwkSet(BaseModel):
    keys: tuple[Annotated[Key | None, PlainValidator(_key)], ...]

    @field_validator("keys")
    @classmethod
    def _ids_are_unique(cls, keys: tuple[Key | None, ...]) -> tuple[Key | None, ...]:
        seen: set[str] = set()
        for index, key in enumerate(keys):
            if key is None:
                continue
            if key.keyid in seen:
                raise ErrorAt(f"two keys are called {key.keyid!r}", index, "kid")
            seen.add(key.keyid)
        return keys
