"""The clients that people have: curl in all its ways, httpx, nghttp."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, client_context, member


@pytest.fixture
def gateway(raw_agent, start_gateway: StartGateway) -> RunningGateway:
    agent: RawAgent = raw_agent(answer_each)
    return start_gateway([member(agent.port)])


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("curl") is None:
        pytest.skip("no curl: see tools/test-deps")
    return subprocess.run(
        ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_version} %{http_code}", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "no_proxy": "", "NO_PROXY": ""},
    )


def identity(certs: Path) -> list[str]:
    return [
        "--cacert",
        str(certs / "ca.pem"),
        "--cert",
        str(certs / "planner.pem"),
        "--key",
        str(certs / "planner-key.pem"),
    ]


HEADER = ["-H", "flight-capability: code.execute"]


@pytest.mark.parametrize(("version", "said"), [("--http2", "2"), ("--http1.1", "1.1")])
def test_curl_over_mtls(gateway: RunningGateway, certs: Path, version: str, said: str) -> None:
    done = curl(version, *identity(certs), *HEADER, "-d", "{}", f"{gateway.url}/run")
    assert done.stdout == f"ok\n{said} 200", done.stderr


def test_curl_with_a_forward_proxy_whose_host_names_the_capability(gateway: RunningGateway) -> None:
    done = curl("-x", gateway.plain_url, "http://code.execute.flight.internal/run")
    assert done.stdout == "ok\n1.1 200", done.stderr


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
def test_curl_through_a_tunnel_whose_inner_tls_ends_at_the_gateway(
    gateway: RunningGateway, certs: Path, version: str
) -> None:
    trusted = ["--cacert", str(certs / "connect-ca.pem")]
    done = curl(version, "-x", gateway.plain_url, *trusted, "https://code.execute.flight.internal/run")
    assert done.stdout.startswith("ok\n"), done.stderr
    assert done.stdout.endswith("200")


def test_curl_through_an_mtls_proxy_and_the_tunnel_inside_it(gateway: RunningGateway, certs: Path) -> None:
    done = curl(
        "-x",
        gateway.url,
        *("--proxy-cacert", str(certs / "ca.pem")),
        *("--proxy-cert", str(certs / "planner.pem"), "--proxy-key", str(certs / "planner-key.pem")),
        *("--cacert", str(certs / "connect-ca.pem")),
        "https://code.execute.flight.internal/run",
    )
    assert done.stdout.startswith("ok\n"), done.stderr
    assert gateway.handoff(status=200)["from"] == "spiffe://mesh.local/ns/agents/sa/planner"


def test_a_tunnel_to_anywhere_else_is_refused(gateway: RunningGateway) -> None:
    done = curl("-x", gateway.plain_url, "https://example.com/")
    assert done.returncode != 0
    assert "403" in done.stderr


def test_httpx_with_http2(raw_agent, start_gateway: StartGateway) -> None:
    def reads_all(agent: RawAgent, connection: socket.socket) -> None:
        length = len(agent.read_head(connection).partition(b"\r\n\r\n")[2])
        while length < 500_000:
            length += len(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    gateway = start_gateway([member(raw_agent(reads_all).port)])
    with gateway.client(http2=True) as client:
        response = client.post("/run", headers=CAPABILITY, content=b"x" * 500_000)
    assert (response.http_version, response.status_code, response.text) == ("HTTP/2", 200, "ok")


def test_httpx_by_proxy_setting(gateway: RunningGateway, certs: Path) -> None:
    with httpx.Client(
        proxy=gateway.plain_url, verify=ssl.create_default_context(cafile=certs / "connect-ca.pem"), trust_env=False
    ) as client:
        assert client.get("http://code.execute.flight.internal/run").text == "ok"
        assert client.get("https://code.execute.flight.internal/run").text == "ok"


async def test_httpx_async_with_many_streams_on_one_connection(gateway: RunningGateway, certs: Path) -> None:
    import asyncio

    async with httpx.AsyncClient(
        base_url=gateway.url, verify=client_context(certs), http2=True, limits=httpx.Limits(max_connections=1)
    ) as client:
        answers = await asyncio.gather(*(client.post("/run", headers=CAPABILITY) for _ in range(100)))
    assert {each.status_code for each in answers} == {200}


@pytest.mark.skipif(shutil.which("nghttp") is None, reason="no nghttp: see tools/test-deps")
def test_nghttp(gateway: RunningGateway, certs: Path) -> None:
    done = subprocess.run(
        [
            "nghttp",
            f"--cert={certs / 'planner.pem'}",
            f"--key={certs / 'planner-key.pem'}",
            "-Hflight-capability: code.execute",
            "-v",
            f"{gateway.url}/run",
        ],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert ":status: 200" in done.stdout
    assert 'flight-agent: "executor-1"' in done.stdout
