"""The signature of an envelope: a JWS (RFC 7515) that can be stored with it and verified later.  Pure.

The signature is compact with detached content (appendix F).  What it covers is the whole document but the ``signature``
itself, in the canonical form of RFC 8785: members sorted by UTF-16, no white space, numbers as ECMAScript writes them.
So it survives whatever stores JSON and gives back the same values.
"""

from __future__ import annotations

import json
from typing import Final

import rfc8785
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, OctKey, OKPKey

from gateway.packet.envelope import Envelope

TYPE: Final = "flightpacket+jws"
"""The header's ``typ``: a signature made for something else never passes for an envelope's (RFC 8725 section 3.11)."""
MIN_SECRET_BYTES: Final = 32
"""RFC 7518 section 3.2: a secret is at least as long as the hash."""


class EnvelopeSignatureError(ValueError):
    """A signature that does not hold, or a key that cannot make or check one; the message says why."""


def canonical(envelope: Envelope) -> bytes:
    """What a signature covers: the document without ``signature``, as RFC 8785 writes it."""
    document = envelope.document()
    document.pop("signature", None)
    return rfc8785.dumps(document)


def sign(envelope: Envelope, key: Key, kid: str) -> Envelope:
    """`envelope` with a signature by `key`, in the place of any that it had.

    Args:
        envelope: what to sign.
        key: a private P-256 or Ed25519 key, or a secret of 32 bytes or more.
        kid: the name by which verifiers know the key.

    Raises:
        EnvelopeSignatureError: the key cannot sign.

    """
    algorithm = _algorithms(key)[0]
    header = {"alg": algorithm, "kid": kid, "typ": TYPE}
    try:
        compact = jws.serialize_compact(header, canonical(envelope), key, [algorithm])
    except JoseError as error:
        raise EnvelopeSignatureError(f"the key cannot sign: {error}") from None
    return envelope.model_copy(update={"signature": jws.detach_content(compact)})


def verify(envelope: Envelope, keys: KeySet) -> str:
    """Check the signature of `envelope` and give the ``kid`` of the key that made it.

    Raises:
        EnvelopeSignatureError: there is none, `keys` has no such key, or it does not hold.

    """
    if not envelope.signature:
        raise EnvelopeSignatureError("the envelope is not signed")
    try:
        signature = jws.extract_compact(envelope.signature.encode(), canonical(envelope))
        header = signature.headers()
        if header.keys() != {"alg", "kid", "typ"} or header["typ"] != TYPE:
            raise EnvelopeSignatureError(f"the signature's header is not one of alg, kid and the typ {TYPE}")
        kid = str(header["kid"])
        key = next((each for each in keys if each.kid == kid), None)
        if key is None:
            raise EnvelopeSignatureError(f"no key has the kid {kid[:80]!r}")
        if not jws.validate_compact(signature, key, _algorithms(key)):
            raise EnvelopeSignatureError(f"the signature by {kid!r} does not fit the envelope")
    except JoseError as error:
        raise EnvelopeSignatureError(f"the signature cannot be checked: {error}") from None
    return kid


def _algorithms(key: Key) -> tuple[str, ...]:
    """The algorithms that `key` is good for: what a header says never makes it good for another."""
    if isinstance(key, ECKey) and key.curve_name == "P-256":
        return ("ES256",)
    if isinstance(key, OKPKey) and key.curve_name == "Ed25519":
        return ("Ed25519", "EdDSA")  # RFC 9864 gives it a name of its own; older signers know EdDSA
    if isinstance(key, OctKey) and len(key.raw_value) >= MIN_SECRET_BYTES:
        return ("HS256",)
    raise EnvelopeSignatureError(f"use a P-256 or Ed25519 key, or a secret of at least {MIN_SECRET_BYTES} bytes")


def load_signing_key(text: str) -> Key:
    """The key in `text`, a private key in PEM or a JWK (RFC 7517).

    Raises:
        EnvelopeSignatureError: it is neither, or of a kind that cannot sign.

    """
    try:
        if text.lstrip().startswith("{"):
            key = JWKRegistry.import_key(json.loads(text))
        else:
            private = load_pem_private_key(text.encode(), password=None)
            key = (ECKey if isinstance(private, EllipticCurvePrivateKey) else OKPKey).import_key(text)
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, LookupError) as error:
        raise EnvelopeSignatureError(f"neither a private key in PEM without a password nor a JWK: {error}") from None
    if not key.is_private:
        raise EnvelopeSignatureError("the key is public; a private one signs")
    _algorithms(key)
    return key


def load_key_set(text: str) -> KeySet:
    """The keys of a JWK Set (RFC 7517 section 5), to verify with.

    Raises:
        EnvelopeSignatureError: it is none, or it has a key that cannot be read.

    """
    try:
        return KeySet.import_key_set(json.loads(text))
    except (JoseError, ValueError, TypeError, LookupError) as error:
        raise EnvelopeSignatureError(f"not a JWK Set: {error}") from None
