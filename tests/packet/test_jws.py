"""Signed envelopes: what holds, and everything that must not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, Key, KeySet, OctKey, OKPKey, RSAKey

from gateway.packet.envelope import Envelope, decode, encode, validate
from gateway.packet.jws import (
    TYPE,
    EnvelopeSignatureError,
    canonical,
    load_key_set,
    load_signing_key,
    sign,
    verify,
)
from gateway.packet.payload import compact
from tests.packet.envelopes import documents


def named(key: Key, kid: str = "k") -> Key:
    return type(key).import_key({**key.as_dict(private=True), "kid": kid})


P256 = named(ECKey.generate_key("P-256"))
ED25519 = named(OKPKey.generate_key("Ed25519"))
SECRET = named(OctKey.generate_key(256))
EVERY_KIND = pytest.mark.parametrize("key", [P256, ED25519, SECRET], ids=["ES256", "Ed25519", "HS256"])
PACKET = validate(
    {"specversion": "1.0", "id": "i", "capabilities": ["code.execute"], "budget": {"tokens": 9}, "data": {"n": [1.0]}}
)


def refused(envelope: Envelope, *keys: Key) -> str:
    with pytest.raises(EnvelopeSignatureError) as caught:
        verify(envelope, KeySet(list(keys)))
    return str(caught.value)


def forged(header: dict[str, Any], key: Key, algorithm: str, envelope: Envelope = PACKET) -> Envelope:
    """`envelope` with a signature under any header, as another program may make it."""
    signature = jws.serialize_compact(header, canonical(envelope), key, [algorithm])
    return envelope.model_copy(update={"signature": jws.detach_content(signature)})


@EVERY_KIND
def test_a_signed_envelope_is_verified_after_any_storage_and_names_its_key(key: Key) -> None:
    signed = decode(encode(sign(PACKET, key, "k")))
    assert verify(signed, KeySet([key])) == "k"
    # A database keeps values: not the order of members, nor how a number was written.
    stored = json.loads(encode(signed), parse_float=lambda text: int(float(text)))
    assert verify(decode(json.dumps(dict(reversed(stored.items()))).encode()), KeySet([key])) == "k"


@EVERY_KIND
@given(document=documents, data=st.data())
def test_no_member_can_be_changed_added_or_removed(key: Key, document: dict[str, Any], data: st.DataObject) -> None:
    signed = sign(validate(document), key, "k")
    other = validate(data.draw(documents)).model_copy(update={"signature": signed.signature})
    if canonical(other) == canonical(signed):
        verify(other, KeySet([key]))
    else:
        assert refused(other, key) == "the signature by 'k' does not fit the envelope"


@EVERY_KIND
@given(junk=st.from_regex(r"[A-Za-z0-9_-]{1,60}\.\.[A-Za-z0-9_-]{1,90}", fullmatch=True), data=st.data())
def test_no_made_up_signature_holds(key: Key, junk: str, data: st.DataObject) -> None:
    header = sign(PACKET, key, "k").signature.partition("..")[0]
    signature = data.draw(st.sampled_from([junk, f"{header}..{junk.partition('..')[2]}"]))
    assert refused(PACKET.model_copy(update={"signature": signature}), key)


def test_the_canonical_form_is_that_of_rfc_8785() -> None:
    # RFC 8785 section 3.2.2 and 3.2.3: numbers, escapes, and members in the order of UTF-16 code units.
    data = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
        "\U0001f600": 1,
        "\ufb33": 2,
    }
    written = canonical(validate({"specversion": "1.0", "id": "i", "capabilities": ["a"], "minTrust": 1, "data": data}))
    assert written.decode() == (
        '{"capabilities":["a"],"data":{"literals":[null,true,false],'
        '"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/","\U0001f600":1,"\ufb33":2},'
        '"id":"i","minTrust":1,"specversion":"1.0"}'
    )


def test_a_signature_can_be_checked_with_nothing_but_the_rfcs() -> None:
    signed = sign(PACKET, P256, "k")
    document = json.loads(encode(signed))
    header, signature = document.pop("signature").split("..")
    covered = base64.urlsafe_b64encode(
        b'{"budget":{"tokens":9},"capabilities":["code.execute"],"data":{"n":[1]},"id":"i","specversion":"1.0"}'
    ).rstrip(b"=")
    raw = base64.urlsafe_b64decode(signature + "==")
    public = P256.get_op_key("verify")
    assert isinstance(public, EllipticCurvePublicKey)
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    public.verify(encode_dss_signature(r, s), header.encode() + b"." + covered, ECDSA(hashes.SHA256()))
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "ES256", "kid": "k", "typ": TYPE}


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_a_signer_that_calls_ed25519_eddsa_is_understood() -> None:
    assert verify(forged({"alg": "EdDSA", "kid": "k", "typ": TYPE}, ED25519, "EdDSA"), KeySet([ED25519])) == "k"


def test_a_second_signature_takes_the_place_of_the_first() -> None:
    again = sign(sign(PACKET, P256, "k"), SECRET, "k")
    assert verify(again, KeySet([SECRET])) == "k"
    assert refused(again, P256)


def test_an_envelope_without_a_signature_or_by_an_unknown_key_is_refused() -> None:
    assert refused(PACKET, P256) == "the envelope is not signed"
    assert refused(sign(PACKET, P256, "somebody"), P256) == "no key has the kid 'somebody'"
    assert refused(sign(PACKET, named(ECKey.generate_key("P-256")), "k"), P256)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "kid": "k"},
        {"alg": "HS256", "kid": "k", "typ": "JWT"},
        {"alg": "HS256", "typ": TYPE},
        {"alg": "HS256", "kid": "k", "typ": TYPE, "jku": "https://evil"},
        {"alg": "HS512", "kid": "k", "typ": TYPE},
    ],
    ids=["no typ", "a JWT", "no kid", "more members", "another algorithm"],
)
def test_a_signature_made_for_something_else_is_refused(header: dict[str, Any]) -> None:
    assert refused(forged(header, SECRET, header["alg"]), SECRET)


def test_a_public_key_never_passes_for_a_secret() -> None:
    public = P256.as_pem(private=False)
    header = base64.urlsafe_b64encode(compact({"alg": "HS256", "kid": "k", "typ": TYPE})).rstrip(b"=")
    covered = header + b"." + base64.urlsafe_b64encode(canonical(PACKET)).rstrip(b"=")
    mac = base64.urlsafe_b64encode(hmac.digest(public, covered, hashlib.sha256)).rstrip(b"=")
    assert refused(PACKET.model_copy(update={"signature": f"{header.decode()}..{mac.decode()}"}), P256)


def test_a_private_key_is_read_from_pem_or_jwk() -> None:
    for key in (P256, ED25519):
        assert load_signing_key(key.as_pem(private=True).decode()).thumbprint() == key.thumbprint()
    assert load_signing_key(json.dumps(SECRET.as_dict(private=True))).kid == "k"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "neither a private key in PEM"),
        ("{}", "nor a JWK"),
        ('{"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA"}', "nor a JWK"),
        (json.dumps(ECKey.generate_key("P-256").as_dict(private=False)), "the key is public"),
        (json.dumps(ECKey.generate_key("P-384").as_dict(private=True)), "use a P-256 or Ed25519 key"),
        (json.dumps(OKPKey.generate_key("Ed448").as_dict(private=True)), "use a P-256 or Ed25519 key"),
        (json.dumps(OctKey.generate_key(128).as_dict(private=True)), "a secret of at least 32 bytes"),
        (RSAKey.generate_key(2048).as_pem(private=True).decode(), "a private key"),
        (P256.as_pem(private=False).decode(), "neither a private key"),
    ],
    ids=["empty", "no JWK", "no curve", "public", "P-384", "Ed448", "short secret", "RSA", "public PEM"],
)
def test_a_key_that_cannot_sign_is_told(text: str, told: str) -> None:
    with pytest.raises(EnvelopeSignatureError, match=told):
        load_signing_key(text)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": 1}', '{"keys": [1]}', '{"keys": [{"kty": "oct", "k": ""}]}']
)
def test_what_is_no_jwk_set_is_told(text: str) -> None:
    with pytest.raises(EnvelopeSignatureError, match="not a JWK Set"):
        load_key_set(text)


def test_keys_in_a_set_that_are_of_no_use_here_do_no_harm() -> None:
    rsa = RSAKey.generate_key(2048).as_dict(private=False) | {"kid": "r"}
    keys = load_key_set(json.dumps({"keys": [rsa, P256.as_dict(private=False), {"kty": "AKP", "alg": "ML-DSA-44"}]}))
    assert verify(sign(PACKET, P256, "k"), keys) == "k"
    with pytest.raises(EnvelopeSignatureError, match="use a P-256 or Ed25519 key"):
        verify(sign(PACKET, P256, "r"), keys)
