"""Another implementation of RFC 9421, http-message-signatures, and ours agree, both ways."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms

from gateway.identity import SpiffeId
from gateway.messages import RequestHead
from gateway.packet.digest import content_digest
from gateway.packet.keys import Key, KeySet, SigningKey
from gateway.packet.signature import SignatureError, sign, verify

PLANNER = SpiffeId("spiffe://mesh.local/ns/agents/sa/planner")
SECRET = bytes(range(32))
BODY = b'{"job": 1}'
NOW = int(time.time())
KINDS: dict[str, tuple[SigningKey, type]] = {
    "hmac": (SECRET, algorithms.HMAC_SHA256),
    "p256": (ec.generate_private_key(ec.SECP256R1()), algorithms.ECDSA_P256_SHA256),
    "ed25519": (Ed25519PrivateKey.generate(), algorithms.ED25519),
}


class Resolver(HTTPSignatureKeyResolver):
    def resolve_private_key(self, key_id: str) -> SigningKey:
        return KINDS[key_id][0]

    def resolve_public_key(self, key_id: str):  # type: ignore[no-untyped-def]
        key = KINDS[key_id][0]
        return key if isinstance(key, bytes) else key.public_key()


KEYS = KeySet({keyid: Key(keyid, PLANNER, Resolver().resolve_public_key(keyid)) for keyid in KINDS})


def request() -> httpx.Request:
    fields = [
        ("flight-capability", "code.execute"),
        ("flight-capability", "lang.python"),
        ("flight-id", '"id-1"'),
        ("flight-budget", "tokens=10,  hops=2"),
        ("content-digest", content_digest(BODY).decode()),
    ]
    return httpx.Request("POST", "https://gateway.mesh.local:8443/run?x=1&name=a%20b", headers=fields, content=BODY)


def head_of(request: httpx.Request) -> RequestHead:
    fields = [(name.lower(), value) for name, value in request.headers.raw if name.lower() != b"host"]
    return RequestHead(b"POST", b"https", b"gateway.mesh.local:8443", request.url.raw_path, fields)


REQUIRED = ("flight-capability", "flight-id", "flight-budget", "content-digest")


@pytest.mark.parametrize("keyid", KINDS)
@pytest.mark.parametrize(
    "covered",
    [
        ("@method", "@target-uri", *REQUIRED),
        ("@method", "@authority", "@path", "@query", *REQUIRED),
        ("@method", "@target-uri", "@request-target", "@scheme", '"@query-param";name="name"', *REQUIRED),
        ("@method", "@target-uri", "content-type", *REQUIRED, '"flight-budget";key="hops"'),
        ("@method", "@target-uri", *REQUIRED[:-1], '"content-digest";sf', '"flight-budget";key="hops"'),
        ("@method", "@target-uri", "flight-capability", '"flight-id";bs', '"flight-budget";bs', "content-digest"),
    ],
)
def test_what_they_sign_verifies_here(keyid: str, covered: tuple[str, ...]) -> None:
    message = request()
    message.headers["content-type"] = "application/json"
    signer = HTTPMessageSigner(signature_algorithm=KINDS[keyid][1], key_resolver=Resolver())
    signer.sign(
        message,
        key_id=keyid,
        label="flight",
        nonce="n-1",
        created=datetime.fromtimestamp(NOW, UTC),
        expires=datetime.fromtimestamp(NOW + 60, UTC),
        covered_component_ids=covered,
        use_existing_digest=True,
    )
    signature = verify(head_of(message), KEYS, None, NOW)
    assert signature is not None
    assert (signature.keyid, signature.nonce, signature.expires) == (keyid, "n-1", NOW + 60)

    message.headers["flight-id"] = '"id-2"'
    with pytest.raises(SignatureError, match="signature: "):
        verify(head_of(message), KEYS, None, NOW)


@pytest.mark.parametrize("keyid", KINDS)
def test_what_we_sign_verifies_there(keyid: str) -> None:
    message = request()
    for name, value in sign(head_of(message), KINDS[keyid][0], keyid=keyid, created=NOW, nonce="n-1"):
        message.headers[name.decode()] = value.decode()
    verifier = HTTPMessageVerifier(signature_algorithm=KINDS[keyid][1], key_resolver=Resolver())
    [result] = verifier.verify(message)
    assert result.label == "flight"
    assert result.parameters == {"created": NOW, "keyid": keyid, "nonce": "n-1"}
    assert set(result.covered_components) == {
        '"@method"',
        '"@target-uri"',
        '"@signature-params"',
        *(f'"{name}"' for name in REQUIRED),
    }


def test_digests_are_the_same() -> None:
    message = httpx.Request("POST", "https://gateway/", content=BODY)
    signer = HTTPMessageSigner(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=Resolver())
    signer.sign(message, key_id="hmac", body=BODY)
    assert message.headers["content-digest"] == content_digest(BODY).decode()
