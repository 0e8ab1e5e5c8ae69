"""Who may ask the admin port what, and what it never tells."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from gateway.agent import FlightAuth
from gateway.control.config import load_config
from gateway.documents import DocumentError
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, client_context, member
from tests.control.test_config import MINIMAL

TOKEN = "correct-horse-battery-staple"
PASSWORD = "redis-pass-w0rd"
JWK_SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"
JWK = {"kty": "oct", "kid": "k", "alg": "HS256", "sub": "spiffe://mesh.local/x", "k": JWK_SECRET}
EVERYTHING = ("/metrics", "/status", "/snapshot", "/explain")


def ok(agent: RawAgent, connection) -> None:
    while True:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def problem(folder: Path, admin: str) -> str:
    file = folder / "gateway.yaml"
    file.write_text(f"{MINIMAL}  admin: {admin}\n")
    with pytest.raises(DocumentError) as caught:
        load_config(file)
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    ("admin", "told"),
    [
        ('{address: "0.0.0.0:9901"}', "gateway.yaml:9:20: spec.admin.address: others reach this address"),
        ('{address: "[::]:9901"}', "gateway.yaml:9:20: spec.admin.address: others reach this address"),
        ('{address: "gateway.mesh:9901"}', "gateway.yaml:9:20: spec.admin.address: others reach this address"),
        ('{address: "0.0.0.0:9901", tls: true}', "gateway.yaml:9:20: spec.admin.address: others reach this address"),
        ('{allow: ["spiffe://mesh.local/ops"]}', "gateway.yaml:9:18: spec.admin.allow: callers are known by"),
        ('{tls: true, allow: ["spiffe://mesh.local/o"]}', "gateway.yaml:9:16: spec.admin.tls: TLS needs spec.identity"),
        ("{tokenFile: no-such-file}", "no-such-file:1:1: the admin token cannot be used"),
        ("{tokenFile: short}", "short:1:1: the admin token cannot be used: expected a token of 16"),
    ],
)
def test_an_admin_port_that_anybody_could_ask_is_refused(tmp_path: Path, admin: str, told: str) -> None:
    (tmp_path / "short").write_text("secret\n")
    assert problem(tmp_path, admin).startswith(told), problem(tmp_path, admin)


@pytest.mark.parametrize(
    "url", [f"redis//:{PASSWORD}@cache", f"redis://:x/{PASSWORD}@cache:6379", f"redis://:{PASSWORD}@cache:x"]
)
def test_a_mistaken_redis_url_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"{MINIMAL}  redis: {{url: '{url}'}}\n")
    with pytest.raises(DocumentError) as caught:
        load_config(file)
    assert "gateway.yaml:9:16: " in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.fixture
def gateway(raw_agent, start_gateway: StartGateway, certs: Path, tmp_path: Path) -> RunningGateway:
    """A gateway with every kind of secret; its admin port asks for a certificate or a token."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [JWK]}))
    allow = ["spiffe://mesh.local/ns/agents/sa/coder"]
    return start_gateway(
        [member(raw_agent(ok).port)],
        admin_spec={"tls": True, "allow": allow, "tokenFile": str(tmp_path / "token")},
        redis={"url": f"redis://:{PASSWORD}@127.0.0.1:1/0"},
        keys=str(keys),
    )


def ask(gateway: RunningGateway, path: str, name: str | None = None, token: str = "") -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    context = client_context(gateway.certs, name)
    url = f"https://127.0.0.1:{gateway.admin_port}{path}"
    return httpx.get(url, verify=context, headers=headers, timeout=10, trust_env=False)


def test_a_certificate_or_a_token_opens_the_admin_port_and_nothing_it_says_is_secret(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    assert ask(gateway, "/healthz").status_code == ask(gateway, "/readyz").status_code == 200
    for path in EVERYTHING:
        assert ask(gateway, path).status_code == 401
        assert ask(gateway, path, token="wrong-horse-battery-staple").status_code == 401
        assert ask(gateway, path, name="planner").status_code == 403, "its certificate is good, but not allowed"
        assert ask(gateway, path, name="coder").status_code in (200, 400)
        assert ask(gateway, path, token=TOKEN).status_code in (200, 400)
    (tmp_path / "token").write_text("another-horse-battery-staple")
    assert ask(gateway, "/status", token=TOKEN).status_code == 401, "the file is read again"
    signing = FlightAuth.from_svid(gateway.certs / "planner.pem", gateway.certs / "planner-key.pem")
    with gateway.client() as client:
        answer = client.post("/run?token=query-secret", headers={**CAPABILITY, "authorization": "s3cret"}, auth=signing)
        assert answer.status_code == 503, "no Redis"
    flight_id = answer.headers.get("flight-id", "none").strip('"')
    told = "".join(ask(gateway, path, name="coder").text for path in (*EVERYTHING, f"/explain?id={flight_id}"))
    secrets = [TOKEN, "another-horse", PASSWORD, "query-secret", "s3cret", JWK_SECRET, "PRIVATE KEY"]
    for key in gateway.certs.glob("*-key.pem"):
        secrets += key.read_text().splitlines()[1:-1]
    for secret in secrets:
        assert secret not in told
        assert secret not in gateway.log()


def test_a_page_whose_name_leads_here_reads_nothing(raw_agent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(ok).port)])
    url = f"http://127.0.0.1:{gateway.admin_port}/status"
    for host, status in (
        ("evil.example:9901", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost:9901", 200),
        ("[::1]:9901", 200),
        ("[::1]", 200),
        ("localhost", 200),
        ("localhost:9901.evil.example", 421),
        ("127.0.0.1:80@evil.example", 421),
        ("127.0.0.1", 200),
    ):
        assert httpx.get(url, headers={"host": host}, trust_env=False).status_code == status, host
    with socket.create_connection(("127.0.0.1", gateway.admin_port), 10) as probe:
        probe.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")  # as balancers ask
        assert b" 200 " in probe.recv(65536).partition(b"\r\n")[0]


def test_what_is_refused_ends_the_command_with_2(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(f'{MINIMAL}  admin: {{address: "0.0.0.0:9901"}}\n')
    command = [sys.executable, "-m", "gateway.cli", "run", "--config", str(tmp_path / "gateway.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "gateway.yaml:9:20: " in done.stderr
