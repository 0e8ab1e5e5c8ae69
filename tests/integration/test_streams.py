"""Long-lived exchanges with real libraries: SSE, gRPC, WebSocket by Upgrade and by extended CONNECT."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import h2.events
import pytest
import websockets
from websockets.frames import Frame, Opcode
from websockets.sync.server import serve

from tests.conformance.test_http2 import Peer
from tests.conftest import CAPABILITY, RawAgent, StartGateway, client_context, member


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A WebSocket agent that answers in capitals."""

    def shout(connection) -> None:  # type: ignore[no-untyped-def]
        for message in connection:
            connection.send(message.upper())

    with serve(shout, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


async def test_websocket_by_upgrade_over_mtls(echo_port: int, start_gateway: StartGateway, certs: Path) -> None:
    gateway = start_gateway([member(echo_port)])
    async with websockets.connect(
        f"wss://127.0.0.1:{gateway.tls_port}/chat",
        ssl=client_context(certs),
        additional_headers=CAPABILITY,
    ) as connection:
        for text in ("hello", "x" * 200_000):
            await connection.send(text)
            assert await connection.recv() == text.upper()
    logged = await asyncio.to_thread(gateway.handoff, outcome="completed")
    assert logged["protocol"] == "http/1.1"
    assert logged["bytes_out"] > 0


async def test_a_websocket_that_policy_refuses_is_told_why(
    echo_port: int, start_gateway: StartGateway, certs: Path
) -> None:
    gateway = start_gateway([member(echo_port)])
    with pytest.raises(websockets.InvalidStatus) as caught:
        await websockets.connect(
            f"wss://127.0.0.1:{gateway.tls_port}/chat",
            ssl=client_context(certs, "mallory"),
            additional_headers=CAPABILITY,
        )
    assert caught.value.response.status_code == 403
    assert b"denied-by-policy" in caught.value.response.body


def test_websocket_by_extended_connect(echo_port: int, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(echo_port)])
    peer = Peer(socket.create_connection(("127.0.0.1", gateway.plain_port), 5))
    peer.until(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
    assert peer.h2.remote_settings.enable_connect_protocol == 1
    stream = peer.request(
        [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "gateway"),
            (":path", "/chat"),
            ("sec-websocket-version", "13"),
            ("flight-capability", "code.execute"),
        ],
        ended=False,
    )
    head = dict(peer.event(h2.events.ResponseReceived, stream).headers)
    assert head[":status"] == "200"
    assert head["flight-agent"] == '"executor-1"'
    peer.h2.send_data(stream, Frame(Opcode.TEXT, b"hello").serialize(mask=True))
    peer.flush()
    assert peer.event(h2.events.DataReceived, stream).data.endswith(b"HELLO")


@pytest.fixture
def grpc_port() -> Iterator[int]:
    """A gRPC agent: unary, server streaming, bidirectional, and one that fails."""

    def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-trailer", "seen"),))
        return request.upper()

    def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for at in range(5):
            yield b"%s-%d" % (request, at)

    def both(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield request.upper()

    def fails(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Fails": grpc.unary_unary_rpc_method_handler(fails),
    }
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("agent.Agent", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


def channel(certs: Path, port: int, name: str) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        (certs / "ca.pem").read_bytes(), (certs / f"{name}-key.pem").read_bytes(), (certs / f"{name}.pem").read_bytes()
    )
    return grpc.secure_channel(f"127.0.0.1:{port}", credentials)


METADATA = (("flight-capability", "code.execute"),)


def test_grpc_in_all_its_shapes(grpc_port: int, start_gateway: StartGateway, certs: Path) -> None:
    gateway = start_gateway([member(grpc_port, protocol="h2c")])
    with channel(certs, gateway.tls_port, "planner") as through:
        answer, call = through.unary_unary("/agent.Agent/Unary").with_call(b"abc", metadata=METADATA)
        assert answer == b"ABC"
        assert ("x-trailer", "seen") in [tuple(each) for each in call.trailing_metadata()]
        streamed = through.unary_stream("/agent.Agent/Stream")(b"n", metadata=METADATA)
        assert list(streamed) == [b"n-%d" % at for at in range(5)]
        both = through.stream_stream("/agent.Agent/Both")(iter([b"a", b"b" * 300_000]), metadata=METADATA)
        assert list(both) == [b"A", b"B" * 300_000]
        with pytest.raises(grpc.RpcError) as caught:
            through.unary_unary("/agent.Agent/Fails")(b"", metadata=METADATA)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "not today"


def test_a_refused_grpc_call_gets_a_grpc_status(grpc_port: int, start_gateway: StartGateway, certs: Path) -> None:
    gateway = start_gateway([member(grpc_port, protocol="h2c")])
    with channel(certs, gateway.tls_port, "mallory") as through, pytest.raises(grpc.RpcError) as caught:
        through.unary_unary("/agent.Agent/Unary")(b"abc", metadata=METADATA)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "urn:phoenixflight:denied-by-policy" in (caught.value.details() or "")


@pytest.mark.parametrize("http2", [True, False])
def test_an_sse_event_arrives_before_the_next_is_made(raw_agent, start_gateway: StartGateway, http2: bool) -> None:
    heard = threading.Event()

    def events(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"9\r\ndata: 1\n\n\r\n"
        )
        assert heard.wait(5)
        connection.sendall(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    gateway = start_gateway([member(raw_agent(events).port)])
    with gateway.client(http2=http2) as client, client.stream("GET", "/events", headers=CAPABILITY) as response:
        pieces = response.iter_raw()
        assert next(pieces) == b"data: 1\n\n"
        heard.set()
        assert b"".join(pieces) == b"data: 2\n\n"
