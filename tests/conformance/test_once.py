"""Packets that are done once, through real sockets: an agent is asked once, whoever asks again, and whatever breaks."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h2.errors
import h2.events
import httpx
import pytest

from gateway.packet.digest import content_digest
from gateway.packet.envelope import validate
from gateway.packet.modes import to_structured
from tests.conformance.test_http1 import HEAD, talk
from tests.conformance.test_http2 import HEADERS, Peer, connect, h2_agent
from tests.conformance.test_signatures import KeyFile
from tests.conformance.trust import AGENTS, bodies, policy, refusal, requests_on, rule, signed
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, launch, member
from tests.redis_server import RedisServer
from tests.waiting import eventually, free_port

LEDGER: dict[str, Any] = {"capabilities": ["code.*"]}
CAPABLE = ["code.execute", "text.read"]
WHOLE = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-number: %d\r\nflight-repeated: ?1\r\n"
    b"trailer: flight-usage\r\n\r\n"
    b"3\r\none\r\n4\r\n two\r\n0\r\nflight-usage: tokens=8\r\n\r\n"
)
BEGINNING = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"


class Worker:
    """An agent that remembers what it was asked to do."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answers: list[bytes] = []
        """The parts of what it answers once, before it breaks off; else it answers as it should."""
        self.may_answer = threading.Event()
        self.rest = threading.Event()
        """It may go on after a part."""
        self.forget()

    def serve(self, agent: RawAgent, connection: socket.socket) -> None:
        for stream in requests_on(connection):
            self.asked.append(bodies(stream)[0])
            assert self.may_answer.wait(30)
            if self.answers:
                for part in self.answers:
                    connection.sendall(part)
                    assert self.rest.wait(10)
                self.answers.clear()
                return
            connection.sendall(WHOLE % len(self.asked))

    def forget(self) -> None:
        """Another test begins."""
        self.asked.clear()
        self.answers.clear()
        self.may_answer.set()
        self.rest.set()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, certs: Path) -> Iterator[tuple[Worker, RawAgent, RunningGateway]]:
    """A gateway of many tests: each has ids of its own."""
    worker = Worker()
    agent = RawAgent(worker.serve)
    gateway = launch(tmp_path_factory.mktemp("once"), certs, [member(agent.port, capabilities=CAPABLE)], ledger=LEDGER)
    yield worker, agent, gateway
    gateway.stop()
    agent.close()


@pytest.fixture
def worker(shared: tuple[Worker, RawAgent, RunningGateway]) -> Worker:
    shared[0].forget()
    return shared[0]


@pytest.fixture
def agent(shared: tuple[Worker, RawAgent, RunningGateway]) -> RawAgent:
    return shared[1]


@pytest.fixture
def gateway(shared: tuple[Worker, RawAgent, RunningGateway]) -> RunningGateway:
    return shared[2]


Send = Callable[..., httpx.Response]
_ids = itertools.count()


@pytest.fixture
def headers() -> dict[str, str]:
    """Those of a packet with an id of this test's own."""
    return {**CAPABILITY, "flight-id": f'"id-{next(_ids)}"'}


@pytest.fixture
def send(headers: dict[str, str]) -> Send:
    """Sends that packet, unless told otherwise."""

    def send(gateway: RunningGateway, name: str = "planner", **more: Any) -> httpx.Response:
        request = {"method": "POST", "url": "/run", "content": b"job", "timeout": 40, **more}
        request["headers"] = {**headers, **more.get("headers", {})}
        with gateway.client(name, http2=request.pop("http2", False)) as client:
            return client.request(**request)

    return send


def same(first: httpx.Response, again: httpx.Response) -> bool:
    """Whether `again` is `first` repeated, and says so."""
    hop_by_hop = {"transfer-encoding", "content-length"}
    fields, repeated = (
        [item for item in response.headers.multi_items() if item[0] not in hop_by_hop] for response in (first, again)
    )
    return (
        (first.status_code, first.content) == (again.status_code, again.content)
        and "flight-repeated" not in first.headers
        and repeated == [*fields, ("flight-repeated", "?1")]
    )


# -- repeats --------------------------------------------------------------------------------------------------


def test_a_packet_that_comes_again_gets_the_first_answer_and_no_agent_is_asked(
    gateway: RunningGateway, worker: Worker, send: Send
) -> None:
    first = send(gateway)
    assert (first.status_code, first.content, first.headers["x-number"]) == (200, b"one two", "1")
    assert same(first, send(gateway))
    assert same(first, send(gateway, http2=True))
    assert worker.asked == [b"job"]
    logged = gateway.handoff(repeated=True)
    assert (logged["outcome"], logged["status"], logged["bytes_out"]) == ("completed", 200, 7)
    assert "agent" not in logged


def test_trailers_are_repeated_too(gateway: RunningGateway, worker: Worker, headers: dict[str, str]) -> None:
    seen = []
    for _ in range(2):
        peer = connect(gateway)
        stream = peer.request([*HEADERS, ("flight-id", headers["flight-id"])], ended=False)
        peer.h2.send_data(stream, b"job", end_stream=True)
        peer.flush()
        head = dict(peer.event(h2.events.ResponseReceived, stream).headers)
        trailers = dict(peer.event(h2.events.TrailersReceived, stream).headers)
        peer.event(h2.events.StreamEnded, stream)
        seen.append((head.pop("flight-repeated", None), head, trailers))
    assert seen[0][1:] == seen[1][1:]
    assert [each[0] for each in seen] == [None, "?1"]
    assert seen[1][2] == {"flight-usage": "tokens=8"}
    assert len(worker.asked) == 1


def test_an_answer_streams_while_it_is_noted(
    gateway: RunningGateway, worker: Worker, headers: dict[str, str], send: Send
) -> None:
    worker.rest.clear()
    worker.answers = [BEGINNING, b"4\r\n two\r\n0\r\n\r\n"]
    with gateway.client() as client, client.stream("POST", "/run", headers=headers, content=b"job") as response:
        pieces = response.iter_raw()
        assert next(pieces) == b"one"
        worker.rest.set()
        assert b"".join(pieces) == b" two"
    assert send(gateway).content == b"one two"


def test_a_large_answer_is_repeated_whole_whatever_the_caller_has_a_window_for(
    gateway: RunningGateway, worker: Worker, send: Send
) -> None:
    large = bytes(range(250)) * 4000
    worker.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + large]
    first = send(gateway, http2=True)
    assert first.content == large
    assert same(first, send(gateway, http2=True))
    assert same(first, send(gateway))
    assert worker.asked == [b"job"]


def test_whatever_the_agent_answers_is_the_outcome(gateway: RunningGateway, worker: Worker, send: Send) -> None:
    worker.answers = [b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"]
    first = send(gateway)
    assert first.status_code == 503
    assert same(first, send(gateway))
    assert len(worker.asked) == 1


def test_another_packet_under_the_same_id_is_a_conflict(gateway: RunningGateway, worker: Worker, send: Send) -> None:
    assert send(gateway).status_code == 200
    others: list[dict[str, Any]] = [
        {"content": b"another"},
        {"content": b""},
        {"method": "PUT"},
        {"url": "/run?x=1"},
        {"headers": {"flight-capability": "code.execute, text.read"}},
        {"headers": {"content-type": "text/plain"}},
    ]
    for other in others:
        response = send(gateway, **other)
        assert refusal(response) == (409, "id-conflict"), other
    assert len(worker.asked) == 1


def test_each_caller_has_ids_of_its_own(gateway: RunningGateway, worker: Worker, send: Send) -> None:
    for name in ("planner", "coder", "planner", "coder"):
        assert send(gateway, name, content=name.encode()).status_code == 200
    assert worker.asked == [b"planner", b"coder"]


def test_a_signed_packet_is_its_signer_s_whoever_carries_it(
    agent: RawAgent, worker: Worker, start_gateway: StartGateway, tmp_path: Path, headers: dict[str, str]
) -> None:
    rules = policy(
        rule("own", callers="planner", require={"signature": True}),
        rule("carried", callers="executor", require={"signature": True, "signers": [f"{AGENTS}/planner"]}),
    )
    keys = KeyFile(tmp_path / "keys")
    auth = keys.auth
    gateway = start_gateway([member(agent.port)], ledger=LEDGER, policy=rules, keys=str(keys.path))
    with gateway.client() as planner, gateway.client("executor") as executor:
        request = signed(planner, auth, **headers)
        assert planner.send(request).status_code == 200
        # The very same signature is refused as ever; signed anew, it is the same packet.
        assert refusal(planner.send(request)) == (409, "replayed")
        assert planner.send(signed(planner, auth, **headers)).headers["flight-repeated"] == "?1"
        assert executor.send(signed(executor, auth, **headers)).headers["flight-repeated"] == "?1"
    assert len(worker.asked) == 1


def test_what_only_reads_is_not_in_the_ledger_and_neither_are_other_capabilities(
    gateway: RunningGateway, worker: Worker, send: Send
) -> None:
    for _ in range(2):
        assert "flight-repeated" not in send(gateway, method="GET", content=b"").headers
        assert "flight-repeated" not in send(gateway, headers={"flight-capability": "text.read"}).headers
    assert len(worker.asked) == 4


# -- twins ----------------------------------------------------------------------------------------------------


def test_twenty_twins_at_once_are_done_once_and_all_get_the_answer(
    gateway: RunningGateway, worker: Worker, send: Send
) -> None:
    worker.may_answer.clear()
    with ThreadPoolExecutor(20) as pool:
        before = counted(gateway)["twin-waited"]
        twins = [pool.submit(send, gateway, http2=number % 2 == 1) for number in range(20)]
        eventually(lambda: counted(gateway)["twin-waited"] == before + 19, 25)
        worker.may_answer.set()
        answers = [twin.result() for twin in twins]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"one two")}
    assert sorted(answer.headers.get("flight-repeated", "") for answer in answers) == ["", *["?1"] * 19]
    assert len(worker.asked) == 1


def counted(gateway: RunningGateway) -> dict[str, int]:
    """How many packets each event of the ledger befell."""
    lines = gateway.admin("/metrics").text.splitlines()
    start = 'phoenixflight_ledger_packets_total{event="'
    found = [line.removeprefix(start).split('"} ') for line in lines if line.startswith(start)]
    return {event: int(float(count)) for event, count in found}


def test_a_twin_is_refused_where_twins_are_or_when_it_has_waited_long_enough(
    agent: RawAgent, worker: Worker, start_gateway: StartGateway, send: Send
) -> None:
    for twins in ({"twins": "refuse"}, {"wait": "10ms"}):
        gateway = start_gateway([member(agent.port)], ledger={**LEDGER, **twins})
        worker.asked.clear()
        worker.may_answer.clear()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(send, gateway)
            eventually(lambda: worker.asked)
            twin = send(gateway)
            assert refusal(twin) == (409, "in-flight")
            assert twin.headers["retry-after"] == "1"
            assert refusal(send(gateway, content=b"other")) == (409, "id-conflict")
            worker.may_answer.set()
            assert same(first.result(), send(gateway))
        assert len(worker.asked) == 1


def test_when_nothing_came_of_a_packet_its_twin_is_done(
    worker: Worker, agent: RawAgent, start_gateway: StartGateway, send: Send, headers: dict[str, str]
) -> None:
    """The first waits for the agent's only connection until its caller goes."""
    gateway = start_gateway([member(agent.port)], ledger=LEDGER, limits={"maxConnectionsPerAgent": 1})
    worker.may_answer.clear()
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(send, gateway, method="GET", content=b"")
        eventually(lambda: worker.asked)
        peer = connect(gateway)
        stream = peer.request([*HEADERS, ("flight-id", headers["flight-id"])])
        eventually(lambda: counted(gateway)["begun"] == 1)
        reset_stream(peer, stream)
        eventually(lambda: counted(gateway)["forgotten"] == 1)
        twin = pool.submit(send, gateway)
        eventually(lambda: counted(gateway)["begun"] == 2)
        worker.may_answer.set()
        assert other.result().status_code == 200
        assert "flight-repeated" not in twin.result().headers
    assert worker.asked == [b"", b"job"]


# -- what breaks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-", BEGINNING, b"nonsense\r\n\r\n"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_agent_that_broke_off_leaves_its_packet_unknown_and_nobody_is_asked_again(
    gateway: RunningGateway, worker: Worker, answer: bytes, method: str, send: Send
) -> None:
    worker.answers = [answer]
    try:
        assert send(gateway, method=method).status_code == 502
    except httpx.TransportError:
        assert answer == BEGINNING
    again = send(gateway, method=method)
    assert refusal(again) == (409, "outcome-unknown")
    assert "new flight-id" in again.json()["detail"]
    assert len(worker.asked) == 1


def test_an_answer_too_large_to_keep_reaches_its_caller_and_is_unknown_afterwards(
    agent: RawAgent, worker: Worker, start_gateway: StartGateway, send: Send
) -> None:
    gateway = start_gateway([member(agent.port)], ledger={**LEDGER, "maxAnswer": 6})
    assert send(gateway).content == b"one two"
    assert refusal(send(gateway)) == (409, "outcome-unknown")
    assert counted(gateway)["too-large"] == 1
    assert len(worker.asked) == 1


def test_what_reached_no_agent_may_be_sent_again(
    worker: Worker, agent: RawAgent, start_gateway: StartGateway, send: Send
) -> None:
    port = free_port()
    gateway = start_gateway([member(port)], ledger=LEDGER)
    assert refusal(send(gateway)) == (503, "no-eligible-agent")
    assert refusal(send(gateway, "mallory")) == (403, "denied-by-policy")
    assert refusal(send(gateway, headers={"content-digest": content_digest(b"x").decode()}))[0] == 400
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                worker.serve(agent, connection)

        threading.Thread(target=serve, daemon=True).start()
        eventually(lambda: send(gateway, content=b"another").status_code == 200)
    assert worker.asked == [b"another"]


def test_another_agent_is_asked_while_certainly_none_has_taken_the_packet(
    worker: Worker, agent: RawAgent, raw_agent, start_gateway: StartGateway, send: Send
) -> None:
    refused: list[int] = []

    def refuses(peer: Peer, agent: RawAgent) -> None:
        while True:
            refused.append(peer.event(h2.events.RequestReceived).stream_id)
            peer.h2.reset_stream(refused[-1], h2.errors.ErrorCodes.REFUSED_STREAM)
            peer.flush()

    refusing = raw_agent(h2_agent(refuses))
    gateway = start_gateway([member(refusing.port, "refusing", protocol="h2c"), member(agent.port)], ledger=LEDGER)
    for number in range(20):
        for _ in range(2):
            headers = {"flight-id": f'"refused-{number}"'}
            assert send(gateway, headers=headers).status_code == 200
    assert refused
    assert worker.asked == [b"job"] * 20
    assert counted(gateway)["begun"] == counted(gateway)["repeated"] == 20


def test_a_caller_that_went_away_finds_the_answer_when_it_comes_again(gateway: RunningGateway, worker: Worker) -> None:
    for number, gone in enumerate([reset_stream, close_connection], 1):
        worker.may_answer.clear()
        peer = connect(gateway)
        stream = peer.request([*HEADERS, ("flight-id", f'"gone-{number}"')])
        eventually(lambda: worker.asked[number - 1 :])  # noqa: B023
        gone(peer, stream)
        peer.socket.close()
        eventually(lambda: connections(gateway) == 0)
        worker.may_answer.set()
        gateway.handoff(outcome="cancelled", flight_id=f"gone-{number}", status=200)
        peer = connect(gateway)
        stream = peer.request([*HEADERS, ("flight-id", f'"gone-{number}"')])
        head = dict(peer.event(h2.events.ResponseReceived, stream).headers)
        assert (head[":status"], head["flight-repeated"], head["x-number"]) == ("200", "?1", str(number))
        peer.socket.close()
    assert len(worker.asked) == 2


def connections(gateway: RunningGateway) -> float:
    """How many callers' connections are open."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in gateway.admin("/metrics").text.splitlines()
        if line.startswith("phoenixflight_connections{")
    )


def reset_stream(peer: Peer, stream: int) -> None:
    peer.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    peer.flush()


def close_connection(peer: Peer, stream: int) -> None:
    peer.socket.close()


# -- bounds and what cannot be done once ----------------------------------------------------------------------


def test_a_packet_without_an_id_or_with_a_tunnel_is_refused(gateway: RunningGateway, worker: Worker) -> None:
    with gateway.client() as client:
        response = client.post("/run", headers=CAPABILITY)
    assert refusal(response) == (400, "malformed-packet")
    assert "flight-id is missing" in response.json()["detail"]
    upgrade = b'GET /run HTTP/1.1\r\nhost: g\r\nflight-capability: code.execute\r\nflight-id: "t"\r\n'
    upgrade += b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    answer = talk(gateway, upgrade + b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert b"urn:phoenixflight:tunnel-refused" in answer
    assert worker.asked == []


def test_a_large_body_passes_whole_and_a_larger_one_is_refused(
    agent: RawAgent, worker: Worker, start_gateway: StartGateway, send: Send
) -> None:
    """Larger than an HTTP/2 window, which is given back while the body is held."""
    limit = 600_000
    gateway = start_gateway([member(agent.port)], ledger={**LEDGER, "maxBody": limit, "maxHeld": limit})
    for number, http2 in enumerate((False, True)):
        headers = {"flight-id": f'"large-{number}"'}
        assert send(gateway, http2=http2, headers=headers, content=b"x" * limit).status_code == 200
        with gateway.client(http2=http2) as client:
            for more in (iter([b"x" * limit, b"x"]), b"x" * (limit + 1)):
                response = client.post("/run", headers={**CAPABILITY, "flight-id": '"more"'}, content=more)
                assert refusal(response) == (413, "body-too-large")
    assert [len(body) for body in worker.asked] == [limit, limit]


def test_bodies_that_are_held_have_a_bound_in_all(
    agent: RawAgent, worker: Worker, start_gateway: StartGateway, send: Send
) -> None:
    gateway = start_gateway([member(agent.port)], ledger={**LEDGER, "maxBody": 1000, "maxHeld": 1000})
    peer = connect(gateway)
    stream = peer.request([*HEADERS, ("flight-id", '"slow"')], ended=False)
    peer.h2.send_data(stream, b"x" * 900)
    peer.flush()
    eventually(lambda: send(gateway, content=b"x" * 101).status_code == 503)
    assert refusal(send(gateway, content=b"x" * 101)) == (503, "overloaded")
    reset_stream(peer, stream)
    eventually(lambda: send(gateway, content=b"x" * 101).status_code == 200)


def test_a_ledger_that_is_full_lets_nothing_new_begin(
    agent: RawAgent, worker: Worker, start_gateway: StartGateway, send: Send
) -> None:
    gateway = start_gateway([member(agent.port)], ledger={**LEDGER, "capacity": 1})
    first = send(gateway)
    full = send(gateway, headers={"flight-id": '"another"'})
    assert refusal(full) == (503, "overloaded")
    assert full.headers["retry-after"] == "1"
    assert same(first, send(gateway))
    assert len(worker.asked) == 1
    assert "phoenixflight_ledger_entries 1.0" in gateway.admin("/metrics").text


def test_a_caller_that_waits_for_100_continue_is_told_to_go_on(gateway: RunningGateway, worker: Worker) -> None:
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 5) as connection:
        connection.sendall(HEAD + b'flight-id: "e"\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n')
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"job")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert worker.asked == [b"job"]


def test_an_envelope_is_done_once(gateway: RunningGateway, worker: Worker, send: Send) -> None:
    packet = {"specversion": "1.0", "id": "e-1", "capabilities": ["code.execute"], "data": {"a": 1}}
    fields, body = to_structured(validate(packet))
    headers = {key.decode(): text.decode() for key, text in fields}
    assert same(send(gateway, headers=headers, content=body), send(gateway, headers=headers, content=body))
    assert refusal(send(gateway, headers=headers, content=body + b" ")) == (409, "id-conflict")
    assert worker.asked == [body]


# -- replicas -------------------------------------------------------------------------------------------------


@pytest.fixture
def replicas(agent: RawAgent, start_gateway: StartGateway, redis: RedisServer) -> tuple[RunningGateway, RunningGateway]:
    spec = {"ledger": {**LEDGER, "lease": "3s"}, "redis": {"url": redis.url}}
    return start_gateway([member(agent.port)], **spec), start_gateway([member(agent.port)], **spec)


def insist(send: Send, gateway: RunningGateway, **more: Any) -> httpx.Response:
    """Send it again as long as it is told to: on a busy machine Redis may not answer in time."""
    return eventually(lambda: answer if (answer := send(gateway, **more)).status_code != 503 else None, 20)


def test_two_gateways_do_it_once_between_them_also_after_a_restart(
    replicas: tuple[RunningGateway, RunningGateway],
    worker: Worker,
    agent: RawAgent,
    start_gateway: StartGateway,
    redis: RedisServer,
    send: Send,
) -> None:
    one, other = replicas
    worker.may_answer.clear()
    with ThreadPoolExecutor(8) as pool:
        twins = [pool.submit(insist, send, replicas[number % 2]) for number in range(8)]
        eventually(lambda: counted(one)["twin-waited"] + counted(other)["twin-waited"] == 7, 25)
        worker.may_answer.set()
        answers = [twin.result() for twin in twins]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"one two")}
    first = next(answer for answer in answers if "flight-repeated" not in answer.headers)
    for gateway in replicas:
        assert same(first, insist(send, gateway))
        assert refusal(insist(send, gateway, content=b"another")) == (409, "id-conflict")
        assert gateway.stop() == 0
    assert same(first, insist(send, start_gateway([member(agent.port)], ledger=LEDGER, redis={"url": redis.url})))
    assert len(worker.asked) == 1


def test_a_gateway_that_died_leaves_what_it_had_under_way_unknown_to_the_others(
    replicas: tuple[RunningGateway, RunningGateway], worker: Worker, send: Send
) -> None:
    one, other = replicas
    worker.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(insist, send, one)
        eventually(lambda: worker.asked)
        one.process.kill()
        with pytest.raises(httpx.TransportError):
            lost.result()
    worker.may_answer.set()
    assert refusal(insist(send, other)) == (409, "outcome-unknown")
    assert len(worker.asked) == 1


def test_without_redis_what_is_done_once_is_not_done_at_all(
    replicas: tuple[RunningGateway, RunningGateway], worker: Worker, redis: RedisServer, send: Send
) -> None:
    redis.stop()
    for gateway in replicas:
        assert refusal(send(gateway)) == (503, "overloaded")
        assert send(gateway, method="GET", content=b"").status_code == 200
    assert worker.asked == [b"", b""]
    redis.start()
    assert insist(send, replicas[0]).status_code == 200
