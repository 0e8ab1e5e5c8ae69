"""Keys from a JWK Set, and from the certificate that a caller shows."""

from __future__ import annotations

import hashlib
import json
import ssl
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.control.certs_dev import Authority
from gateway.documents import DocumentError
from gateway.identity import Principal, SpiffeId, principal_from_certificate
from gateway.packet.jwks import load_keys
from gateway.packet.keys import Algorithm, KeySet, UnusableKeyError, make_signature

PLANNER = "spiffe://mesh.local/ns/agents/sa/planner"
SECRET = bytes(range(32))
ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(32))
P256 = ec.derive_private_key(7, ec.SECP256R1())
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def b64(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


POINT = P256.public_key().public_numbers()
OKP: dict[str, Any] = {
    "kty": "OKP",
    "crv": "Ed25519",
    "kid": "planner-1",
    "sub": PLANNER,
    "x": b64(ED25519.public_key().public_bytes_raw()),
}
EC: dict[str, Any] = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "planner-2",
    "sub": PLANNER,
    "alg": "ES256",
    "use": "sig",
    "x": b64(POINT.x.to_bytes(32)),
    "y": b64(POINT.y.to_bytes(32)),
}
OCT: dict[str, Any] = {"kty": "oct", "kid": "planner-3", "sub": PLANNER, "k": b64(SECRET), "x5c": ["ignored"]}


def load(*keys: Any) -> KeySet:
    return load_keys(json.dumps({"keys": keys}, indent=2), "keys.json")


def test_each_kind_of_key_verifies_what_its_other_half_signed() -> None:
    keys = load(OKP, EC, OCT)
    for keyid, algorithm, signer in (
        ("planner-1", Algorithm.ED25519, ED25519),
        ("planner-2", Algorithm.ECDSA_P256_SHA256, P256),
        ("planner-3", Algorithm.HMAC_SHA256, SECRET),
    ):
        key = keys.find(keyid, None)
        assert key is not None
        assert (key.principal, key.algorithm) == (PLANNER, algorithm)
        signature = make_signature(signer, b"message")
        assert key.verifies(signature, b"message")
        assert not key.verifies(signature, b"another")
        assert not key.verifies(signature[:-1], b"message")
    assert keys.find("planner-4", None) is None


def test_keys_for_encryption_are_passed_over_whatever_they_are() -> None:
    assert set(load({"kty": "RSA", "use": "enc"}, OKP).keys) == {"planner-1"}


def test_a_key_set_may_be_empty() -> None:
    assert load().keys == {}


@pytest.mark.parametrize(
    ("jwk", "told"),
    [
        (OKP | {"kty": "RSA"}, "keys.json:4:14: keys.0.kty: 'RSA' is not usable here; expected 'OKP', 'EC' or 'oct'"),
        (OKP | {"crv": "X25519"}, "keys.json:5:14: keys.0.crv: expected 'Ed25519'"),
        (EC | {"crv": "P-384"}, "keys.json:5:14: keys.0.crv: expected 'P-256'"),
        (EC | {"alg": "RS256"}, "keys.json:8:14: keys.0.alg: expected 'ES256'"),
        (OKP | {"d": b64(bytes(32))}, "keys.json:9:12: keys.0.d: a private key belongs to its holder alone"),
        (OKP | {"x": "AAAA"}, "keys.json:8:12: keys.0.x: expected 32 bytes, found 3"),
        (OKP | {"x": "AA+A"}, "keys.json:8:12: keys.0.x: expected base64url without padding"),
        (EC | {"y": b64(bytes(32))}, "keys.json:10:12: keys.0.x: x and y are no point of P-256"),
        (OCT | {"k": b64(SECRET[:31])}, "keys.json:7:12: keys.0.k: a shared secret needs 32 bytes or more, not 31"),
        (OCT | {"k": 7}, "keys.json:7:12: keys.0.k: expected text"),
        (OCT | {"kid": "ключ"}, "keys.json:5:14: keys.0.kid: expected 1 to 255 printable ASCII characters"),
        (OCT | {"sub": "planner"}, "keys.json:6:14: keys.0.sub: 'planner' is not a SPIFFE id"),
        ({"kty": "oct"}, "keys.json:3:5: keys.0.kid: 'kid' is required"),
        ("a key", "keys.json:3:5: keys.0: expected a JSON object"),
    ],
)
def test_a_bad_key_is_refused_where_it_is_bad(jwk: Any, told: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(jwk)
    assert str(caught.value).startswith(told), str(caught.value)


def test_two_keys_of_one_id_are_refused() -> None:
    with pytest.raises(DocumentError, match=r"keys\.json:12:14: keys\.1\.kid: two keys are called 'planner-1'"):
        load(OKP, OCT | {"kid": "planner-1"})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": {}}', '{"keys": [', "\x00"])
def test_what_is_no_key_set_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match=r"keys\.json:[12]:"):
        load_keys(text, "keys.json")


def test_no_refusal_repeats_key_material() -> None:
    secret = b64(SECRET[:31])
    for jwk in (OCT | {"k": secret}, OCT | {"k": secret + "!"}, OKP | {"d": secret}):
        with pytest.raises(DocumentError) as caught:
            load(jwk)
        assert secret not in str(caught.value)
    assert secret not in repr(load(OCT))


def shown(certificate: bytes) -> Principal:
    return principal_from_certificate(ssl.PEM_cert_to_DER_cert(certificate.decode()))


def test_a_callers_certificate_gives_its_key_by_spiffe_id_and_by_thumbprint() -> None:
    certificate, private = Authority.create("CA", NOW).issue(NOW, uris=[PLANNER])
    signer = serialization.load_pem_private_key(private, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    principal = shown(certificate)
    signature = make_signature(signer, b"message")
    for keyid in (PLANNER, b64(hashlib.sha256(principal.certificate).digest())):
        key = KeySet().find(keyid, principal)
        assert key is not None
        assert (key.keyid, key.principal) == (keyid, PLANNER)
        assert key.verifies(signature, b"message")
    assert KeySet().find("spiffe://mesh.local/ns/agents/sa/coder", principal) is None
    assert KeySet().find(PLANNER, None) is None
    assert KeySet().find(PLANNER, Principal(SpiffeId(PLANNER))) is None


def test_the_key_set_speaks_before_the_certificate() -> None:
    certificate, _ = Authority.create("CA", NOW).issue(NOW, uris=[PLANNER])
    key = load(OCT | {"kid": PLANNER}).find(PLANNER, shown(certificate))
    assert key is not None
    assert key.algorithm is Algorithm.HMAC_SHA256


def test_an_rsa_certificate_says_that_its_key_cannot_sign() -> None:
    private = rsa.generate_private_key(65537, 2048)
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), 1, NOW, NOW)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(PLANNER)]), critical=True)
        .sign(private, hashes.SHA256())
    )
    principal = shown(certificate.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(UnusableKeyError, match="RSA"):
        KeySet().find(PLANNER, principal)
    assert KeySet().find("planner-1", principal) is None


def test_principals_are_the_same_whatever_certificate_they_show() -> None:
    authority = Authority.create("CA", NOW)
    first, second = (shown(authority.issue(NOW, uris=[PLANNER])[0]) for _ in range(2))
    assert first == second
    assert "certificate" not in repr(first)
