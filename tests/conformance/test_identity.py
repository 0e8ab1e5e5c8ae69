"""Who gets in: certificates through real TLS."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import h2.events
import httpx
import pytest

from gateway.control.certs_dev import Authority, issue_dev_certificates, write_pair
from gateway.packet.fields import GATEWAY_ONLY_RESPONSE
from tests.conformance.test_http1 import HEAD, answer_each
from tests.conformance.test_http2 import HEADERS, Peer, connect, h2_agent
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, client_context, eventually, member


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


def failures(gateway: RunningGateway) -> str:
    text = gateway.admin("/metrics").text
    return "\n".join(line for line in text.splitlines() if line.startswith("phoenixflight_handshake_failures_total"))


def authority(certs: Path) -> Authority:
    return Authority.load(certs / "ca.pem", certs / "ca-key.pem")


def refused_in_handshake(gateway: RunningGateway, context: ssl.SSLContext) -> None:
    with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
        httpx.post(f"{gateway.url}/run", headers=CAPABILITY, verify=context, trust_env=False)


def test_no_certificate_fails_the_handshake(agent: RawAgent, start_gateway: StartGateway, certs: Path) -> None:
    gateway = start_gateway([member(agent.port)])
    refused_in_handshake(gateway, client_context(certs, None))
    assert 'reason="certificate-missing"' in eventually(lambda: failures(gateway))
    assert agent.received == []


def test_a_foreign_certificate_fails_the_handshake(
    agent: RawAgent, start_gateway: StartGateway, certs: Path, tmp_path: Path
) -> None:
    gateway = start_gateway([member(agent.port)])
    issue_dev_certificates(
        tmp_path / "foreign",
        trust_domain="mesh.local",
        svids={"planner": "/ns/agents/sa/planner"},
        now=datetime.now(UTC),
    )
    context = client_context(certs, None)
    context.load_cert_chain(tmp_path / "foreign" / "planner.pem", tmp_path / "foreign" / "planner-key.pem")
    refused_in_handshake(gateway, context)
    assert 'reason="certificate-untrusted"' in eventually(lambda: failures(gateway))


def test_an_expired_certificate_fails_the_handshake(
    agent: RawAgent, start_gateway: StartGateway, certs: Path, tmp_path: Path
) -> None:
    gateway = start_gateway([member(agent.port)])
    pair = authority(certs).issue(datetime.now(UTC), uris=["spiffe://mesh.local/ns/agents/sa/planner"], days=-1)
    write_pair(tmp_path, "expired", *pair)
    context = client_context(certs, None)
    context.load_cert_chain(tmp_path / "expired.pem", tmp_path / "expired-key.pem")
    refused_in_handshake(gateway, context)
    assert 'reason="certificate-expired"' in eventually(lambda: failures(gateway))


@pytest.mark.parametrize(
    "uris",
    [[], ["spiffe://mesh.local/a", "spiffe://mesh.local/b"], ["https://mesh.local/a"]],
    ids=["none", "several", "not SPIFFE"],
)
def test_a_certificate_that_names_nobody_is_told_so(
    agent: RawAgent, start_gateway: StartGateway, certs: Path, tmp_path: Path, uris: list[str]
) -> None:
    gateway = start_gateway([member(agent.port)])
    write_pair(tmp_path, "odd", *authority(certs).issue(datetime.now(UTC), uris=uris, dns=["localhost"]))
    context = client_context(certs, None)
    context.load_cert_chain(tmp_path / "odd.pem", tmp_path / "odd-key.pem")
    response = httpx.post(f"{gateway.url}/run", headers=CAPABILITY, verify=context, trust_env=False)
    assert response.status_code == 401
    assert response.json()["type"] == "urn:phoenixflight:identity-required"
    assert agent.received == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumption_never_skips_client_authentication(
    agent: RawAgent, start_gateway: StartGateway, certs: Path, version: ssl.TLSVersion
) -> None:
    gateway = start_gateway([member(agent.port)])
    context = client_context(certs, "planner")
    context.minimum_version = context.maximum_version = version
    session: ssl.SSLSession | None = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", gateway.tls_port), 5) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: g\r\nflight-capability: code.execute\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            session = connection.session
    assert {each["from"] for each in gateway.handoffs()} <= {"spiffe://mesh.local/ns/agents/sa/planner"}
    # A session that somebody with no certificate holds gets them nowhere.
    bare = client_context(certs, None)
    bare.minimum_version = bare.maximum_version = version
    refused_in_handshake(gateway, bare)


def test_an_agent_with_the_wrong_identity_gets_no_packet(start_gateway: StartGateway, certs: Path, raw_agent) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certs / "ca.pem")
    context.load_cert_chain(certs / "mallory.pem", certs / "mallory-key.pem")

    def serve(agent: RawAgent, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            agent.received.append(secure.recv(1000))

    impostor = raw_agent(serve)
    executor = "spiffe://mesh.local/ns/agents/sa/executor"
    gateway = start_gateway([member(impostor.port, spiffeId=executor)])
    with gateway.client() as client:
        response = client.post("/run", headers=CAPABILITY)
    assert response.status_code == 503
    assert response.json()["type"] == "urn:phoenixflight:no-eligible-agent"
    assert b"".join(impostor.received) == b""
    assert "wrong-identity" in gateway.log()


def test_an_agent_over_mtls_sees_the_gateway_s_identity(start_gateway: StartGateway, certs: Path, raw_agent) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certs / "ca.pem")
    context.load_cert_chain(certs / "executor.pem", certs / "executor-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    seen: list[object] = []

    def serve(agent: RawAgent, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            certificate = secure.getpeercert()
            assert certificate is not None
            seen.append(dict(certificate["subjectAltName"])["URI"])
            secure.recv(1000)
            secure.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    agent = raw_agent(serve)
    gateway = start_gateway([member(agent.port, spiffeId="spiffe://mesh.local/ns/agents/sa/executor")])
    with gateway.client(http2=True) as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
    assert seen == ["spiffe://mesh.local/ns/phoenixflight/sa/gateway"]


# -- what an agent says of itself ---------------------------------------------------------------------------


FORGED = [(name.decode(), '"forged"') for name in sorted(GATEWAY_ONLY_RESPONSE)]
HONEST = ("x-own", '"honest"')
Section = list[tuple[str, str]]


def forging_over_http1(agent: RawAgent, connection: socket.socket) -> None:
    """Writes what only the gateway says, in any case of letters, wherever a field may stand."""

    def written(*fields: tuple[str, str]) -> bytes:
        return b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in fields) + b"\r\n"

    agent.read_head(connection)
    forged = written(HONEST, *FORGED, *((name.title(), value) for name, value in FORGED))
    connection.sendall(b"HTTP/1.1 103 Early Hints\r\n" + forged)
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + forged)
    connection.sendall(b"2\r\nok\r\n0\r\n" + forged)
    connection.recv(1)


def forging_over_http2(peer: Peer, agent: RawAgent) -> None:
    """The same."""
    stream = peer.event(h2.events.RequestReceived).stream_id
    peer.h2.send_headers(stream, [(":status", "103"), HONEST, *FORGED])
    peer.h2.send_headers(stream, [(":status", "200"), HONEST, *FORGED])
    peer.h2.send_data(stream, b"ok")
    peer.h2.send_headers(stream, [HONEST, *FORGED], end_stream=True)
    peer.flush()
    while peer.socket.recv(1000):  # until the gateway closes
        pass


def over_http1(gateway: RunningGateway) -> list[Section]:
    """The interim head, the head and the trailers of an answer."""
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 10) as connection:
        connection.sendall(HEAD + b"content-length: 0\r\nconnection: close\r\n\r\n")
        received = b""
        while piece := connection.recv(65536):
            received += piece
    interim, head, body, end = received.decode().split("\r\n\r\n")
    assert (body.partition("0\r\n")[0], end) == ("2\r\nok\r\n", "")
    sections = interim.partition("\r\n")[2], head.partition("\r\n")[2], body.partition("0\r\n")[2]
    return [[tuple(line.lower().split(": ", 1)) for line in section.split("\r\n")] for section in sections]


def over_http2(gateway: RunningGateway) -> list[Section]:
    """The same."""
    peer = connect(gateway)
    peer.socket.settimeout(10)
    stream = peer.request(HEADERS)
    kinds = h2.events.InformationalResponseReceived, h2.events.ResponseReceived, h2.events.TrailersReceived
    with contextlib.closing(peer.socket):
        return [list(peer.event(kind, stream).headers) for kind in kinds]


AGENTS_THAT_FORGE = {"http/1.1": forging_over_http1, "h2c": h2_agent(forging_over_http2)}
CALLERS = {"http1-caller": over_http1, "http2-caller": over_http2}


@pytest.mark.parametrize(("protocol", "caller"), list(itertools.product(AGENTS_THAT_FORGE, CALLERS)))
def test_an_agent_cannot_write_what_only_the_gateway_says(
    raw_agent, start_gateway: StartGateway, protocol: str, caller: str
) -> None:
    agent = raw_agent(AGENTS_THAT_FORGE[protocol])
    gateway = start_gateway([member(agent.port, protocol=protocol)])
    sections = CALLERS[caller](gateway)
    assert [HONEST in section for section in sections] == [True] * 3
    assert not [field for section in sections for field in section if "forged" in field[1]]
    said = [name for name, _ in sections[1] if name.encode() in GATEWAY_ONLY_RESPONSE]
    assert sorted(said) == ["flight-agent", "flight-decision", "flight-id"]
    assert ("flight-agent", '"executor-1"') in sections[1]
