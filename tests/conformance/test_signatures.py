"""Who has signed a packet, proven through real sockets."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64encode
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.agent import FlightAuth
from tests.conformance.trust import AGENTS, policy, refusal, rule, signed, svid_auth, take_messages
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, member
from tests.redis_server import RedisServer
from tests.waiting import eventually

SIGNED = policy(rule("signed", require={"signature": True}))


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(take_messages)


@pytest.fixture
def gateway(agent: RawAgent, start_gateway: StartGateway) -> RunningGateway:
    """It takes signed packets only."""
    return start_gateway([member(agent.port)], policy=SIGNED)


def test_a_packet_signed_with_the_caller_s_certificate_passes_once(gateway: RunningGateway, certs: Path) -> None:
    for http2 in (False, True):
        with gateway.client(http2=http2) as client:
            request = signed(client, svid_auth(certs))
            assert client.send(request).status_code == 200
            assert refusal(client.send(request)) == (409, "replayed")
            assert client.send(signed(client, svid_auth(certs))).status_code == 200
    logged = gateway.handoff(outcome="completed")
    assert (logged["signer"], logged["rule"]) == (f"{AGENTS}/planner", "signed")
    assert gateway.handoff(reason="replayed")["outcome"] == "refused"


def test_an_unsigned_packet_is_told_which_rule_wants_a_signature(gateway: RunningGateway, agent: RawAgent) -> None:
    for http2 in (False, True):
        with gateway.client(http2=http2) as client:
            response = client.post("/run", headers=CAPABILITY)
        assert refusal(response) == (401, "signature-invalid")
        assert response.json()["policy"] == "test"
        assert "test/signed" in response.json()["detail"]
    assert agent.connections == 0


CHANGES = [
    ("flight-conversation", '"another"', "signature"),
    ("flight-capability", "code.execute;min-trust=0.1", "signature"),
    ("flight-budget", "tokens=1000000", '"flight-budget"'),
    ("content-digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:", "signature"),
    ("signature-input", 'flight=("@method");created=1;keyid="k"', "keyid"),
]
"""A field, its new value, and what the refusal says has failed."""


def test_what_was_changed_after_signing_is_refused(gateway: RunningGateway, agent: RawAgent, certs: Path) -> None:
    for http2 in (False, True):
        with gateway.client(http2=http2) as client:
            for name, value, failed in CHANGES:
                request = signed(client, svid_auth(certs), **{"flight-conversation": '"c"'})
                request.headers[name] = value
                response = client.send(request)
                assert refusal(response) == (401, "signature-invalid"), name
                assert response.json()["detail"].startswith(f"{failed}: "), name
    assert agent.connections == 0


class KeyFile:
    """A JWK Set on disk, and the private keys of those in it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "keys.json"
        self.key = Ed25519PrivateKey.generate()
        self.auth = FlightAuth(self.key, "planner-1")
        self.publish()

    def publish(self, *, withdrawn: bool = False) -> None:
        """Replace the file."""
        x = urlsafe_b64encode(self.key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        jwk = {"kty": "OKP", "crv": "Ed25519", "kid": "planner-1", "sub": f"{AGENTS}/planner", "x": x}
        fresh = self.path.with_name(".keys.new")
        fresh.write_text(json.dumps({"keys": [] if withdrawn else [jwk]}))
        os.replace(fresh, self.path)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    """It holds a key of the planner's."""
    return KeyFile(tmp_path / "keys")


def test_a_key_counts_while_it_is_in_the_key_set(agent: RawAgent, start_gateway: StartGateway, keys: KeyFile) -> None:
    gateway = start_gateway([member(agent.port)], policy=SIGNED, keys=str(keys.path))
    with gateway.client() as client:
        assert client.send(signed(client, keys.auth)).status_code == 200
        assert gateway.handoff(outcome="completed")["signer"] == f"{AGENTS}/planner"
        for withdrawn, wanted in ((True, 401), (False, 200)):
            before = gateway.revision()
            keys.publish(withdrawn=withdrawn)
            eventually(lambda before=before: gateway.revision() != before)
            response = client.send(signed(client, keys.auth))
            assert response.status_code == wanted
            if withdrawn:
                assert response.json()["detail"] == "keyid: no such key is known here"


def test_a_packet_that_another_has_signed_takes_a_rule_that_names_signers(
    agent: RawAgent, start_gateway: StartGateway, keys: KeyFile
) -> None:
    rules = [
        rule("own", callers="coder", require={"signature": True}),
        rule("plain", callers="coder"),
        rule("carried", callers="executor", require={"signature": True, "signers": [f"{AGENTS}/planner"]}),
    ]
    gateway = start_gateway([member(agent.port)], policy=policy(*rules), keys=str(keys.path))
    with gateway.client("coder") as coder, gateway.client("executor") as executor:
        response = coder.send(signed(coder, keys.auth))
        assert refusal(response) == (401, "signature-invalid")
        assert agent.connections == 0
        assert executor.send(signed(executor, keys.auth)).status_code == 200
    logged = gateway.handoff(outcome="completed")
    assert (logged["from"], logged["signer"]) == (f"{AGENTS}/executor", f"{AGENTS}/planner")


def test_gateways_that_share_a_redis_accept_a_signature_once_between_them(
    agent: RawAgent, start_gateway: StartGateway, certs: Path, redis: RedisServer
) -> None:
    gateways = [start_gateway([member(agent.port)], policy=SIGNED, redis={"url": redis.url}) for _ in range(2)]
    auth = svid_auth(certs)
    with gateways[0].client(http2=True) as one, gateways[1].client() as other:

        def send_through(client: httpx.Client, request: httpx.Request) -> httpx.Response:
            copy = client.build_request("POST", "/run?x=1", headers=request.headers, content=request.content)
            return client.send(copy)

        request = signed(one, auth, host="gateway.mesh.local")
        assert send_through(one, request).status_code == 200
        assert refusal(send_through(other, request)) == (409, "replayed")
        assert refusal(send_through(one, request)) == (409, "replayed")

        redis.stop()
        refused = one.send(signed(one, auth))
        assert refusal(refused) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert agent.connections == 1
        redis.start()
        assert one.send(signed(one, auth)).status_code == 200
        assert other.send(signed(other, auth)).status_code == 200
