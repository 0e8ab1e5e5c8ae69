"""gRPC calls that are done once, with real clients and a real server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from tests.conftest import StartGateway, member
from tests.integration.test_streams import channel

ASKED: list[bytes] = []


@pytest.fixture
def port() -> Iterator[int]:
    """An agent that counts what it is asked."""

    def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
        ASKED.append(request)
        context.set_trailing_metadata((("flight-usage", f"calls={len(ASKED)}"),))
        return b"%s #%d" % (request, len(ASKED))

    def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        ASKED.append(request)
        yield from (b"%d" % number for number in range(100))

    def fails(request: bytes, context: grpc.ServicerContext) -> bytes:
        ASKED.append(request)
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"not today #{len(ASKED)}")

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Fails": grpc.unary_unary_rpc_method_handler(fails),
    }
    ASKED.clear()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("agent.Agent", handlers),))
    number = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield number
    server.stop(None)


def metadata(flight_id: str) -> tuple[tuple[str, str], ...]:
    return ("flight-capability", "code.execute"), ("flight-id", f'"{flight_id}"')


def test_grpc_calls_that_come_again_get_the_first_answer(port: int, start_gateway: StartGateway, certs: Path) -> None:
    gateway = start_gateway([member(port, protocol="h2c")], ledger={"capabilities": ["code.execute"]})
    for _ in range(2):
        with channel(certs, gateway.tls_port, "planner") as through:
            unary = through.unary_unary("/agent.Agent/Unary")
            answer, call = unary.with_call(b"job", metadata=metadata("unary"))
            assert (answer, dict(call.trailing_metadata())["flight-usage"]) == (b"job #1", "calls=1")
            stream = through.unary_stream("/agent.Agent/Stream")(b"job", metadata=metadata("stream"))
            assert list(stream) == [b"%d" % number for number in range(100)]
            with pytest.raises(grpc.RpcError) as caught:
                through.unary_unary("/agent.Agent/Fails")(b"job", metadata=metadata("fails"))
            assert (caught.value.code(), caught.value.details()) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "not today #3",
            )
            with pytest.raises(grpc.RpcError) as caught:
                unary(b"another", metadata=metadata("unary"))
            assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert len(ASKED) == 3
