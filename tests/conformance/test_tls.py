"""TLS at the edge: what is spoken, whose certificate is revoked, and how much of the gateway strangers get."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.control.certs_dev import Authority, write_pair
from tests.conformance.test_http1 import answer_each
from tests.conformance.test_revocation import EventSource, last_words, listening, revoked, short_lived
from tests.conformance.trust import AGENTS
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, client_context, member
from tests.waiting import eventually

REFUSED = (ssl.SSLError, ConnectionError)
POLITE_S = 1.0
"""How long a polite caller waits for its answer at most, whatever others do."""


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


@pytest.fixture
def source(raw_agent) -> EventSource:
    return EventSource(raw_agent)


def failures(gateway: RunningGateway, reason: str) -> float:
    """How many callers were not let in for `reason`."""
    wanted = f'phoenixflight_handshake_failures_total{{listener="mesh",reason="{reason}"}} '
    lines = gateway.admin("/metrics").text.splitlines()
    return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))


def refused(gateway: RunningGateway, context: ssl.SSLContext) -> None:
    with pytest.raises(REFUSED), connected(gateway, context) as connection:
        ask(connection)


@contextlib.contextmanager
def connected(gateway: RunningGateway, context: ssl.SSLContext, **more: Any) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", gateway.tls_port), 5) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", **more) as connection,
    ):
        yield connection


def ask(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nhost: g\r\nflight-capability: code.execute\r\n\r\n")
    answer = connection.recv(1000)
    if not answer:
        raise ConnectionError("closed")
    assert answer.startswith(b"HTTP/1.1 200")


# -- what is spoken -------------------------------------------------------------------------------------


CBC = ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA")
SHORT_TAG = ("ECDHE-ECDSA-AES128-CCM8",)
NO_FORWARD_SECRECY = ("AES128-GCM-SHA256", "AES256-SHA")
FINITE_FIELD = ("DHE+AESGCM",)
MODERN = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305")


def speaking(certs: Path, suite: str) -> ssl.SSLContext:
    """A caller that knows this suite of TLS 1.2 only."""
    context = client_context(certs)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    return context


def test_only_modern_suites_and_versions_are_spoken(agent: RawAgent, start_gateway: StartGateway, certs: Path) -> None:
    gateway = start_gateway([member(agent.port)])
    old_suites = (*CBC, *SHORT_TAG, *NO_FORWARD_SECRECY, *FINITE_FIELD)
    for suite in old_suites:
        refused(gateway, speaking(certs, suite))
    assert eventually(lambda: failures(gateway, "no-shared-cipher") == len(old_suites))
    old = client_context(certs)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    refused(gateway, old)
    assert eventually(lambda: failures(gateway, "tls-version")) == 1
    for suite in MODERN:
        with connected(gateway, speaking(certs, suite)) as connection:
            assert connection.cipher()[0] == suite  # type: ignore[index]
            ask(connection)


def session_of(gateway: RunningGateway, context: ssl.SSLContext, earlier: ssl.SSLSession | None = None) -> Any:
    """A session, and whether it is `earlier` that was resumed."""
    with connected(gateway, context, session=earlier) as connection:
        ask(connection)
        assert connection.session is None or not connection.session.has_ticket
        return connection.session, connection.session_reused


def test_no_session_outlives_the_bundle_that_vouched_for_it(
    agent: RawAgent, start_gateway: StartGateway, lists: Lists
) -> None:
    gateway = start_gateway([member(agent.port)], identity=lists.identity())
    newest, older = client_context(lists.certs), client_context(lists.certs)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    session, _ = session_of(gateway, newest)
    assert not session_of(gateway, newest, session)[1]
    session, _ = session_of(gateway, older)
    since = gateway.admin("/status").json()["certificates_since"]
    lists.write(lists.serial("mallory"))
    eventually(lambda: gateway.admin("/status").json()["certificates_since"] != since, 20)
    assert not session_of(gateway, older, session)[1]


def test_no_session_outlives_the_certificate_behind_it(
    agent: RawAgent, start_gateway: StartGateway, certs: Path, tmp_path: Path
) -> None:
    gateway = start_gateway([member(agent.port)])
    context = short_lived(certs, tmp_path, 3)
    ends = time.time() + 3
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session, _ = session_of(gateway, context)

    def let_in() -> bool:
        try:
            return bool(session_of(gateway, context, session))
        except REFUSED:
            return False

    eventually(lambda: not let_in())
    assert time.time() >= ends - 1
    assert failures(gateway, "certificate-expired")


# -- revocation -----------------------------------------------------------------------------------------


class Lists:
    """The CA's revocation list in a file."""

    def __init__(self, certs: Path, path: Path) -> None:
        self.certs = certs
        self.path = path
        self.authority = Authority.load(certs / "ca.pem", certs / "ca-key.pem")

    def write(self, *serials: int, ends_in_s: float = 3600, encoding: Encoding = Encoding.PEM) -> None:
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.authority.certificate.subject)
        builder = builder.last_update(now - timedelta(hours=1)).next_update(now + timedelta(seconds=ends_in_s))
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(hours=1))
            builder = builder.add_revoked_certificate(entry.build())
        self.replace(builder.sign(self.authority.key, hashes.SHA256()).public_bytes(encoding))

    def replace(self, content: bytes) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(content)
        os.replace(fresh, self.path)

    def serial(self, name: str) -> int:
        return x509.load_pem_x509_certificate((self.certs / f"{name}.pem").read_bytes()).serial_number

    def identity(self) -> dict[str, Any]:
        files = {"certificate": "gateway.pem", "key": "gateway-key.pem", "trustBundle": "ca.pem"}
        return {**{key: str(self.certs / name) for key, name in files.items()}, "crl": str(self.path)}


@pytest.fixture
def lists(certs: Path, tmp_path: Path) -> Lists:
    made = Lists(certs, tmp_path / "ca.crl")
    made.write()
    return made


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_list_that_names_a_caller_ends_what_it_has_open_and_keeps_it_out(
    source: EventSource, start_gateway: StartGateway, lists: Lists, encoding: Encoding
) -> None:
    gateway = start_gateway([member(source.port)], identity=lists.identity())
    with (
        listening(gateway.client("planner")) as one,
        listening(gateway.client("planner", http2=True)) as other,
        listening(gateway.client("coder")) as longer,
        connected(gateway, client_context(lists.certs)) as idle,
    ):
        lists.write(lists.serial("planner"), encoding=encoding)
        for pieces in (one, other):
            assert last_words(pieces) == "identity-required"
        assert idle.recv(1) == b""
        source.go_on.set()
        assert b"".join(longer) == b"data: 2\n\n"
    logged = revoked(gateway, "planner")
    assert logged["reason"] == "identity-required"
    refused(gateway, client_context(lists.certs))
    assert eventually(lambda: failures(gateway, "certificate-revoked")) == 1
    with gateway.client("coder") as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200


def test_a_list_that_cannot_be_used_changes_nothing_and_is_told(
    agent: RawAgent, start_gateway: StartGateway, lists: Lists
) -> None:
    lists.write(lists.serial("planner"))
    gateway = start_gateway([member(agent.port)], identity=lists.identity())
    lists.replace(b"no list\n")
    eventually(lambda: "no revocation list" in str(gateway.admin("/status").json()["last_refused"]))
    refused(gateway, client_context(lists.certs))
    with gateway.client("coder") as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
    assert "phoenixflight_last_reload_successful 0.0" in gateway.admin("/metrics").text


def test_a_list_that_has_ended_lets_nobody_in_and_is_told(
    agent: RawAgent, start_gateway: StartGateway, lists: Lists
) -> None:
    lists.write(ends_in_s=-5)
    gateway = start_gateway([member(agent.port)], identity=lists.identity())
    refused(gateway, client_context(lists.certs))
    assert eventually(lambda: failures(gateway, "crl-expired")) == 1
    told = gateway.admin("/status").json()["certificates"]
    assert told["revocation_lists"][0]["ended"]
    assert "ended at" in told["warnings"][0]
    assert "ended at" in gateway.log()
    assert 'phoenixflight_certificate_end_timestamp_seconds{kind="crl"' in gateway.admin("/metrics").text
    lists.write()
    eventually(lambda: not gateway.admin("/status").json()["certificates"]["warnings"])
    with gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200


# -- agents ---------------------------------------------------------------------------------------------


class SecureAgent:
    """An agent over mTLS: an event stream's first piece, then nothing; its certificate can be changed."""

    def __init__(self, certs: Path, raw_agent: Callable[..., RawAgent]) -> None:
        self.certs = certs
        self.context = self.with_certificate(certs / "executor.pem", certs / "executor-key.pem")
        self.port = raw_agent(self._serve).port
        self.served = 0
        self.left = 0

    def with_certificate(self, certificate: Path, key: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.certs / "ca.pem")
        context.load_cert_chain(certificate, key)
        return context

    def _serve(self, agent: RawAgent, connection: socket.socket) -> None:
        with self.context.wrap_socket(connection, server_side=True) as secure:
            while True:
                head = agent.read_head(secure)
                self.served += 1
                if b"/events" not in head:
                    secure.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    continue
                secure.sendall(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                    b"9\r\ndata: 1\n\n\r\n"
                )
                with contextlib.suppress(OSError):
                    secure.recv(1)
                self.left += 1
                return


EXECUTOR = f"{AGENTS}/executor"


def test_a_list_that_names_an_agent_ends_what_is_under_way_with_it(
    start_gateway: StartGateway, lists: Lists, raw_agent
) -> None:
    agent = SecureAgent(lists.certs, raw_agent)
    gateway = start_gateway([member(agent.port, spiffeId=EXECUTOR)], identity=lists.identity())
    with listening(gateway.client(http2=True)) as pieces, gateway.client("coder") as other:
        assert other.post("/run", headers=CAPABILITY).status_code == 200  # leaves an idle connection
        served = agent.served
        lists.write(lists.serial("executor"))
        assert last_words(pieces) == "upstream-reset"
        eventually(lambda: agent.left == 1)
        assert other.post("/run", headers=CAPABILITY).status_code == 503
    assert agent.served == served
    assert gateway.handoff(outcome="revoked")["reason"] == "upstream-reset"


def test_nothing_new_goes_to_an_agent_over_a_connection_whose_certificate_has_ended(
    start_gateway: StartGateway, certs: Path, tmp_path: Path, raw_agent
) -> None:
    agent = SecureAgent(certs, raw_agent)
    gateway = start_gateway([member(agent.port, spiffeId=EXECUTOR)])
    pair = Authority.load(certs / "ca.pem", certs / "ca-key.pem").issue(
        datetime.now(UTC), uris=[EXECUTOR], days=3 / 86400
    )
    write_pair(tmp_path, "short", *pair)
    lasting, agent.context = agent.context, agent.with_certificate(tmp_path / "short.pem", tmp_path / "short-key.pem")
    with listening(gateway.client("coder")), gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
        assert gateway_connections(gateway, agent.port) == 2
        agent.context = lasting
        eventually(lambda: gateway_connections(gateway, agent.port) == 1)  # the idle one is gone
        assert client.post("/run", headers=CAPABILITY).status_code == 200
        assert agent.left == 0  # what was open goes on


def gateway_connections(gateway: RunningGateway, port: int) -> int:
    """Connections that are open to `port`, by the kernel's table."""
    lines = Path(f"/proc/{gateway.process.pid}/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2] == f"0100007F:{port:04X}" and line.split()[3] == "01" for line in lines)


# -- strangers ------------------------------------------------------------------------------------------


def limits(**more: Any) -> dict[str, Any]:
    return {"limits": more}


def test_a_handshake_that_dribbles_is_closed_whatever_it_sends(
    agent: RawAgent, start_gateway: StartGateway, certs: Path
) -> None:
    gateway = start_gateway([member(agent.port)], **limits(handshakeTimeout="1s", headersTimeout="30s"))
    hello = client_hello(certs)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", gateway.tls_port), 10) as slow, pytest.raises(ConnectionError):
        for octet in hello:
            slow.sendall(bytes([octet]))
            with contextlib.suppress(TimeoutError):
                slow.settimeout(0.05)
                if not slow.recv(1):
                    raise ConnectionError
    assert time.monotonic() - begun < 5
    assert failures(gateway, "handshake-timeout") == 1


def test_a_caller_that_was_let_in_has_the_headers_clock_to_ask(
    agent: RawAgent, start_gateway: StartGateway, certs: Path
) -> None:
    gateway = start_gateway([member(agent.port)], **limits(handshakeTimeout="1s", headersTimeout="30s"))
    with connected(gateway, client_context(certs)) as connection:
        time.sleep(2.5)  # longer than a handshake may take, and a sweep
        ask(connection)


def client_hello(certs: Path) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    layer = client_context(certs).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        layer.do_handshake()
    return outgoing.read()


def knock(gateway: RunningGateway, held: contextlib.ExitStack) -> None:
    """Connect from 127.0.0.2 and say nothing."""
    with contextlib.suppress(ConnectionError):
        held.enter_context(socket.create_connection(("127.0.0.1", gateway.tls_port), 5, ("127.0.0.2", 0)))


def test_an_address_has_so_many_handshakes_under_way_and_others_have_theirs(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)], **limits(maxHandshakesPerAddress=5))
    with contextlib.ExitStack() as silent:
        for _ in range(8):
            knock(gateway, silent)
        assert eventually(lambda: failures(gateway, "too-many-handshakes")) == 3
        with gateway.client() as client:
            assert client.post("/run", headers=CAPABILITY).status_code == 200
    # Those that are gone make room.
    with contextlib.ExitStack() as silent:
        for _ in range(5):
            knock(gateway, silent)
        eventually(lambda: 'phoenixflight_connections{listener="mesh"} 5.0' in gateway.admin("/metrics").text)
    assert failures(gateway, "too-many-handshakes") == 3


def test_connections_are_bounded_by_listener_and_by_address(
    agent: RawAgent, start_gateway: StartGateway, certs: Path
) -> None:
    gateway = start_gateway([member(agent.port)], **limits(maxConnections=4, maxConnectionsPerAddress=2))
    with contextlib.ExitStack() as held:

        def hold(address: str) -> bool:
            try:
                raw = held.enter_context(socket.create_connection(("127.0.0.1", gateway.tls_port), 5, (address, 0)))
                ask(held.enter_context(client_context(certs).wrap_socket(raw, server_hostname="127.0.0.1")))
            except REFUSED:
                return False
            return True

        assert [hold("127.0.0.2") for _ in range(3)] == [True, True, False]
        assert [hold("127.0.0.3") for _ in range(2)] == [True, True]
        assert not hold("127.0.0.4")
        eventually(lambda: failures(gateway, "too-many-connections") == 2)


def test_a_flood_of_handshakes_leaves_others_their_answers(
    agent: RawAgent, start_gateway: StartGateway, certs: Path
) -> None:
    gateway = start_gateway([member(agent.port)], **limits(handshakesPerSecond=20))
    hello, stop = client_hello(certs), threading.Event()
    threads = [threading.Thread(target=flood, args=(gateway.tls_port, hello, stop)) for _ in range(2)]
    before = gateway.rss_bytes()
    with gateway.client() as known:
        assert known.post("/run", headers=CAPABILITY).status_code == 200
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: failures(gateway, "too-many-handshakes"))
            for _ in range(10):
                begun = time.monotonic()
                assert known.post("/run", headers=CAPABILITY, timeout=POLITE_S).status_code == 200
                with gateway.client("coder") as stranger:  # a handshake of its own
                    assert stranger.post("/run", headers=CAPABILITY).status_code == 200
                assert time.monotonic() - begun < 2 * POLITE_S
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert gateway.rss_bytes() - before < 64 * 2**20
    assert gateway.handoffs()


def flood(port: int, hello: bytes, stop: threading.Event) -> None:
    """Begin handshakes from 127.0.0.2, each as far as its first, expensive step, and let none end."""
    held: list[socket.socket] = []
    while not stop.is_set():
        fresh = socket.socket()
        fresh.settimeout(1)
        with contextlib.suppress(OSError):
            fresh.bind(("127.0.0.2", 0))
            fresh.connect(("127.0.0.1", port))
            fresh.sendall(hello)
        held.append(fresh)
        if len(held) > 100:
            held.pop(0).close()
    for each in held:
        each.close()


def test_a_polite_caller_is_no_stranger_after_the_rate_has_come_back(
    agent: RawAgent, start_gateway: StartGateway, certs: Path
) -> None:
    gateway = start_gateway([member(agent.port)], **limits(handshakesPerSecond=1))

    def let_in() -> bool:
        try:
            with connected(gateway, client_context(certs)) as connection:
                ask(connection)
        except REFUSED:
            return False
        return True

    assert [let_in() for _ in range(5)] == [True] * 5
    eventually(lambda: not let_in())
    assert failures(gateway, "too-many-handshakes")
    eventually(let_in)


def test_a_gateway_without_a_list_for_each_root_does_not_start(
    agent: RawAgent, start_gateway: StartGateway, lists: Lists, tmp_path: Path
) -> None:
    other = Authority.create("another CA", datetime.now(UTC)).certificate.public_bytes(Encoding.PEM)
    (tmp_path / "bundle.pem").write_bytes((lists.certs / "ca.pem").read_bytes() + other)
    identity = {**lists.identity(), "trustBundle": str(tmp_path / "bundle.pem")}
    with pytest.raises(AssertionError, match="the root CN=another CA has no list"):
        start_gateway([member(agent.port)], identity=identity)
