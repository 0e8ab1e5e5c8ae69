"""An agent's httpx client sends signed packets."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.agent import FlightAuth
from gateway.identity import SpiffeId, principal_from_certificate
from gateway.messages import RequestHead
from gateway.packet.digest import digest_check
from gateway.packet.keys import Key, KeySet
from gateway.packet.signature import Signature, verify

PLANNER = SpiffeId("spiffe://mesh.local/ns/agents/sa/planner")
SECRET = bytes(range(32))
KEYS = KeySet({"planner-1": Key("planner-1", PLANNER, SECRET)})
NOW = 1_900_000_000
AUTH = FlightAuth(SECRET, "planner-1", clock=lambda: NOW + 0.5)
URL = "https://gateway.mesh.local:8443/run?x=1"


class Recorder:
    """The far end: keeps what it was sent."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200)

    def client(self, auth: FlightAuth = AUTH) -> httpx.Client:
        return httpx.Client(transport=self.transport, auth=auth, headers={"flight-capability": "code.execute"})


def head_of(request: httpx.Request) -> RequestHead:
    """A sent request as the gateway sees it."""
    fields = [(name.lower(), value) for name, value in request.headers.raw if name.lower() != b"host"]
    authority = request.headers["host"].encode()
    return RequestHead(request.method.encode(), request.url.raw_scheme, authority, request.url.raw_path, fields)


def check(request: httpx.Request) -> Signature:
    signature = verify(head_of(request), KEYS, None, NOW)
    assert signature is not None
    return signature


@pytest.fixture
def far() -> Recorder:
    return Recorder()


def test_a_request_becomes_a_signed_packet_with_an_id_and_a_digest(far: Recorder) -> None:
    far.client().post(URL, content=b"job", headers={"flight-conversation": '"c-1"'})
    [request] = far.requests
    signature = check(request)
    assert (signature.signer, signature.created) == (PLANNER, NOW)
    assert signature.covered >= {b"flight-id", b"flight-conversation", b"content-digest"}
    digest = digest_check(request.headers["content-digest"].encode())
    assert digest is not None
    digest.update(b"job")
    assert digest.matches()


def test_no_two_requests_share_an_id_or_a_nonce(far: Recorder) -> None:
    client = far.client()
    for _ in range(2):
        client.get(URL)
    first, second = far.requests
    assert first.headers["flight-id"] != second.headers["flight-id"]
    assert check(first).replay_key != check(second).replay_key
    assert "content-digest" not in first.headers


def test_an_id_that_is_there_stays_and_a_request_sent_again_is_signed_anew(far: Recorder) -> None:
    client = far.client()
    request = client.build_request("POST", URL, content=b"job", headers={"flight-id": '"id-1"'})
    for _ in range(2):
        client.send(request)
    first, second = (check(sent) for sent in far.requests)
    assert [sent.headers["flight-id"] for sent in far.requests] == ['"id-1"', '"id-1"']
    assert first.covered == second.covered


def test_a_body_that_is_made_while_it_is_sent_is_read_and_digested(far: Recorder) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"jo"
        yield b"b"

    far.client().post(URL, content=pieces())
    assert b"content-digest" in check(far.requests[0]).covered


async def test_asynchronous_clients_sign_too(far: Recorder) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"job"

    async with httpx.AsyncClient(transport=far.transport, auth=AUTH) as client:
        await client.post(URL, content=pieces(), headers={"flight-capability": "code.execute"})
    assert b"content-digest" in check(far.requests[0]).covered


def test_an_svids_own_key_signs_and_the_gateway_needs_no_key_set(certs: Path) -> None:
    auth = FlightAuth.from_svid(certs / "planner.pem", certs / "planner-key.pem")
    request = next(auth.auth_flow(httpx.Request("GET", URL, headers={"flight-capability": "code.execute"})))
    principal = principal_from_certificate(ssl.PEM_cert_to_DER_cert((certs / "planner.pem").read_text()))
    signature = verify(head_of(request), KeySet(), principal, time.time())
    assert signature is not None
    assert signature.signer == signature.keyid == principal.id


def test_a_key_that_cannot_sign_packets_is_refused_at_once(certs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        FlightAuth(b"short", "planner-1")
    private = rsa.generate_private_key(65537, 2048)
    (tmp_path / "rsa.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError, match="RSA"):
        FlightAuth.from_svid(certs / "planner.pem", tmp_path / "rsa.pem")
