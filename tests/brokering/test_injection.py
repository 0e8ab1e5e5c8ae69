"""Secrets that agents are given with packets, through a running gateway: who gets them, and who never sees one."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.brokering.authorization_server import AuthorizationServer, authorization_server
from tests.conformance.test_http1 import OK, talk
from tests.conformance.trust import AGENTS, refusal
from tests.conftest import POLICY, ConfigMap, RawAgent, launch, member, write_policy
from tests.waiting import eventually

CALLERS_OWN = "callers-own-token-6f1b"
FIRST, SECOND = "first-secret-9d2c4e", "second-secret-71ab03"


class Agent:
    """An agent over mTLS, or in plaintext, that answers each request and keeps its head."""

    def __init__(self, certs: Path, svid: str | None) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certs / "ca.pem")
        if svid is not None:
            context.load_cert_chain(certs / f"{svid}.pem", certs / f"{svid}-key.pem")
            context.verify_mode = ssl.CERT_REQUIRED

        def serve(agent: RawAgent, connection: socket.socket) -> None:
            if svid is not None:
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                while True:
                    agent.read_head(connection)
                    connection.sendall(OK)

        self.raw = RawAgent(serve)

    def last(self, name: str) -> list[str]:
        """The values of a field in the newest request, however it is spelled."""
        lines = self.raw.received[-1].decode().partition("\r\n\r\n")[0].split("\r\n")[1:]
        pairs = [line.partition(": ") for line in lines]
        return [value for field, _, value in pairs if field.lower().replace("_", "-") == name]


def document(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "phoenixflight.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


class Mesh:
    """A gateway, its agents, an authorization server, and the files of the secrets."""

    def __init__(self, folder: Path, certs: Path, server: AuthorizationServer) -> None:
        self.server = server
        self.executor, self.coder = Agent(certs, "executor"), Agent(certs, "coder")
        self.plain, self.impostor = Agent(certs, None), Agent(certs, "mallory")
        self.mount = ConfigMap(folder / "mounted", {"key": f"{FIRST}\n"})
        (folder / "client").write_text(server.secret)
        file = {"header": "x-api-key", "scheme": "none", "secretFile": "../mounted/key"}
        client = {"tokenUrl": server.url, "clientId": server.client_id, "clientSecretFile": "../client"}
        executor = {"names": ["executor-1"]}
        documents = [
            POLICY,
            document(
                "UpstreamCredential", "keys", capabilities=["keys.*"], agents={"labels": {"vault": "yes"}}, **file
            ),
            document(
                "UpstreamCredential",
                "tokens",
                capabilities=["oauth.call"],
                agents={"spiffeIds": [f"{AGENTS}/executor"]},
                oauth={**client, "scope": ["read", "write"], "audience": "https://third.example"},
            ),
            document(
                "UpstreamCredential",
                "nowhere",
                capabilities=["oauth.none"],
                agents=executor,
                oauth={**client, "audience": "https://nowhere.example"},
            ),
        ]
        offered = ["keys.read", "code.execute", "oauth.call", "oauth.none"]
        self.gateway = launch(
            folder,
            certs,
            [
                _member("executor-1", self.executor, *offered, labels={"vault": "yes"}),
                _member("coder-1", self.coder, "keys.write", spiffe="coder"),
                _member("impostor-1", self.impostor, "keys.forged", labels={"vault": "yes"}),
                member(self.plain.raw.port, "plain-1", capabilities=["keys.plain"], labels={"vault": "yes"}),
            ],
            policy=yaml.safe_dump_all(documents),
            recorder={"folder": str(folder / "recorder")},
        )

    def ask(self, capability: str, *, http2: bool = False, **headers: str) -> httpx.Response:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.gateway.client(http2=http2) as client:
            return client.get("/run", headers={"flight-capability": capability, **fields})

    def count(self, family: str, **labels: str) -> float:
        """What the metrics say of `family` with exactly these labels."""
        told = ",".join(f'{name}="{value}"' for name, value in labels.items())
        lines = self.gateway.admin("/metrics").text.splitlines()
        values = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{family}{{{told}}}")]
        return float(values[0]) if values else 0.0

    def close(self) -> None:
        self.gateway.stop()
        for agent in (self.executor, self.coder, self.plain, self.impostor):
            agent.raw.close()


def _member(name: str, agent: Agent, *capabilities: str, spiffe: str = "executor", **more: Any) -> dict[str, Any]:
    return member(agent.raw.port, name, capabilities=list(capabilities), spiffeId=f"{AGENTS}/{spiffe}", **more)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, certs: Path) -> Iterator[Mesh]:
    with authorization_server() as server:
        running = Mesh(tmp_path_factory.mktemp("brokering"), certs, server)
        yield running
        running.close()


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_the_named_agent_gets_the_secret_and_not_what_the_caller_sent(mesh: Mesh, http2: bool) -> None:
    before = mesh.count("phoenixflight_brokered_secrets_total", document="keys", result="injected")
    assert mesh.ask("keys.read", http2=http2, x_api_key=CALLERS_OWN).status_code == 200
    assert mesh.executor.last("x-api-key") == [FIRST]
    assert mesh.count("phoenixflight_brokered_secrets_total", document="keys", result="injected") == before + 1


def test_a_spelling_that_servers_take_for_the_field_goes_too(mesh: Mesh) -> None:
    with mesh.gateway.client() as client:
        client.get("/run", headers={"flight-capability": "keys.read", "X_Api_Key": CALLERS_OWN})
    assert mesh.executor.last("x-api-key") == [FIRST]


def test_the_field_is_not_let_through_as_a_trailer(mesh: Mesh) -> None:
    before = len(mesh.executor.raw.received)
    head = b"POST /run HTTP/1.1\r\nhost: g\r\nflight-capability: keys.read\r\ntransfer-encoding: chunked\r\n\r\n"
    trailers = b"x-api-key: %s\r\nx-sum: 7\r\n\r\n" % CALLERS_OWN.encode()
    talk(mesh.gateway, head + b"3\r\njob\r\n0\r\n" + trailers, 1.0)
    received = eventually(lambda: (data := b"".join(mesh.executor.raw.received[before:])) and b"x-sum" in data and data)
    assert CALLERS_OWN.encode() not in received


def test_other_agents_get_neither_the_secret_nor_what_the_caller_sent(mesh: Mesh) -> None:
    assert mesh.ask("keys.write", x_api_key=CALLERS_OWN).status_code == 200
    assert mesh.coder.last("x-api-key") == []


def test_other_capabilities_of_the_agent_are_left_alone(mesh: Mesh) -> None:
    assert mesh.ask("code.execute", x_api_key=CALLERS_OWN).status_code == 200
    assert mesh.executor.last("x-api-key") == [CALLERS_OWN]


def test_an_agent_that_nobody_has_identified_gets_nothing_on_loopback_neither(mesh: Mesh) -> None:
    assert refusal(mesh.ask("keys.plain")) == (502, "upstream-unidentified")
    assert mesh.plain.raw.received == []


def test_an_agent_that_shows_another_identity_gets_nothing(mesh: Mesh) -> None:
    assert refusal(mesh.ask("keys.forged")) == (503, "no-eligible-agent")
    assert mesh.impostor.raw.received == []


def test_a_secret_that_is_replaced_is_used_at_once_and_one_that_goes_bad_leaves_the_last(mesh: Mesh) -> None:
    def given() -> str:
        assert mesh.ask("keys.read").status_code == 200
        return mesh.executor.last("x-api-key")[0]

    revision = mesh.gateway.revision()
    try:
        mesh.mount.swap({"key": f"{SECOND}\n"})
        eventually(lambda: given() == SECOND)
        mesh.mount.swap({"key": "two\nlines\n"})
        told = eventually(lambda: mesh.gateway.admin("/status").json()["last_refused"])
        assert "mounted/key:1:1: the secret in it cannot be used: expected one line" in told["problems"][0]
        assert given() == SECOND
    finally:
        mesh.mount.swap({"key": f"{FIRST}\n"})
    eventually(lambda: given() == FIRST)
    assert mesh.gateway.revision() == revision


def test_a_document_whose_secret_is_missing_is_not_put_in_force(mesh: Mesh) -> None:
    revision = mesh.gateway.revision()
    write_policy(
        mesh.gateway.folder,
        "more",
        document("UpstreamCredential", "more", capabilities=["a"], agents={"names": ["b"]}, secretFile="missing"),
    )
    eventually(lambda: "policies/missing:1:1" in mesh.gateway.admin("/status").text)
    assert mesh.gateway.revision() == revision
    (mesh.gateway.folder / "policies" / "more.yaml").unlink()


def test_one_token_is_had_for_all_who_wait_and_used_until_it_is_about_to_end(mesh: Mesh) -> None:
    server = mesh.server
    server.asked.clear()
    server.delay_s = 0.3
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: mesh.ask("oauth.call", authorization=CALLERS_OWN), range(8)))
    server.delay_s = 0.0
    assert [answer.status_code for answer in answers] == [200] * 8
    mesh.ask("oauth.call")
    (form,) = server.asked
    assert form == {
        "grant_type": "client_credentials",
        "scope": "read write",
        "audience": "https://third.example",
    }
    (given,) = mesh.executor.last("authorization")
    assert given == f"Bearer {server.issued[-1]}"
    assert mesh.count("phoenixflight_token_fetches_total", document="tokens", result="ok") == 1
    assert mesh.count("phoenixflight_brokered_secrets_total", document="tokens", result="injected") == 9


def test_a_token_that_is_not_to_be_had_is_not_asked_for_again_at_once(mesh: Mesh) -> None:
    mesh.server.asked.clear()
    before = len(mesh.executor.raw.received)
    for _ in range(3):
        answer = mesh.ask("oauth.none", authorization=CALLERS_OWN)
        assert refusal(answer) == (503, "secret-unavailable")
        assert answer.headers["retry-after"] == "5"
    assert len(mesh.server.asked) == 1
    assert len(mesh.executor.raw.received) == before
    assert mesh.count("phoenixflight_token_fetches_total", document="nowhere", result="refused") == 1


def test_no_secret_is_told_anywhere(mesh: Mesh) -> None:
    gateway = mesh.gateway
    assert mesh.ask("keys.read").status_code == 200
    assert mesh.ask("oauth.call").status_code == 200
    mesh.ask("keys.plain")
    query = "explain?from=spiffe://mesh.local/ns/agents/sa/planner&header=flight-capability:keys.read"
    told = {
        path: gateway.admin(path).text
        for path in ("/status", "/metrics", "/policies", "/snapshot", "/debug/config", f"/{query}", "/conversations")
    }
    told["answer"] = mesh.ask("keys.read").text
    gateway.handoff(capability="oauth.call", brokered="tokens")
    assert "brokered" not in gateway.handoff(capability="keys.plain", reason="upstream-unidentified")
    assert "it is given the secret of keys" in told[f"/{query}"]
    gateway.stop()
    files = [path for path in gateway.folder.rglob("*") if path.is_file()]
    told |= {
        str(path): path.read_bytes().decode("latin-1")
        for path in files
        if "mounted" not in path.parts and path.name != "client"
    }
    assert any("recorder" in name for name in told)
    secrets = (FIRST, SECOND, mesh.server.secret, *mesh.server.issued)
    assert [(name, secret) for name, text in told.items() for secret in secrets if secret in text] == []
    assert "keys" in told["/metrics"]
