"""A request of the gateway's own to an agent, over the same connections as packets."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.proxy.upstream import Pool, UpstreamConnection
from gateway.refusal import Refusal


class ErrandError(Exception):
    """The agent gave no answer, or none that can be used; the message says why."""


class Answer(NamedTuple):
    """What an agent answered."""

    head: ResponseHead
    body: bytes


class _Errand:
    """Takes an answer as it comes, up to a size."""

    caller = ""
    """The gateway itself."""

    def __init__(self, head: RequestHead, body: bytes, max_bytes: int, answer: asyncio.Future[Answer]) -> None:
        self._head = head
        self._body = body
        self._max_bytes = max_bytes
        self._answer = answer
        self._up: UpstreamConnection | None = None
        self._stream = 0
        self._response: ResponseHead | None = None
        self._received = bytearray()

    def on_upstream(self, connection: UpstreamConnection) -> None:
        self._up = connection
        self._stream = connection.open(self, self._head, ended=not self._body)
        if self._body:
            connection.send_data(self._stream, self._body)
            connection.end(self._stream, None)

    def on_turned_away(self, why: str) -> None:
        self._fail(why)

    def on_agent_gone(self) -> None:
        self._fail("it is gone")

    def on_connect_failed(self, why: str) -> None:
        self._fail(why)

    def on_upstream_lost(self, *, untouched: bool, malformed: str) -> None:
        self._up = None
        self._fail("it took no request" if untouched else malformed or "it broke off")

    def revoke(self, refusal: Refusal) -> None:
        self._fail(refusal.detail)

    def upstream_writable(self) -> None:
        """The body is one piece, and small."""

    def on_response(self, head: ResponseHead, *, ended: bool) -> None:
        if head.status >= 200:
            self._response = head
            if ended:
                self.on_response_end(None)

    def on_response_data(self, data: bytes, size: int) -> None:
        assert self._up is not None
        self._received += data
        if len(self._received) > self._max_bytes:
            self._fail(f"its answer has more than {self._max_bytes} bytes")
        else:
            self._up.consumed(self._stream, size)

    def on_response_end(self, _: Fields | None) -> None:
        assert self._response is not None
        self.let_go(cancel=False)
        if not self._answer.done():
            self._answer.set_result(Answer(self._response, bytes(self._received)))

    def let_go(self, *, cancel: bool) -> None:
        up, self._up = self._up, None
        if up is not None:
            up.release(self._stream, cancel=cancel)

    def _fail(self, why: str) -> None:
        self.let_go(cancel=True)
        if not self._answer.done():
            self._answer.set_exception(ErrandError(why))


async def ask(pool: Pool, head: RequestHead, body: bytes = b"", *, max_bytes: int, timeout_s: float) -> Answer:
    """Send a request and wait for its whole answer.

    Args:
        pool: the agent's connections.
        head: the request.
        body: small enough to be sent in one piece.
        max_bytes: of the answer's body.
        timeout_s: for everything.

    Raises:
        ErrandError: there is no answer, or it is too large.

    """
    answer: asyncio.Future[Answer] = pool.loop.create_future()
    errand = _Errand(head, body, max_bytes, answer)
    why = pool.acquire(errand)
    if why:
        raise ErrandError(why)
    try:
        async with asyncio.timeout(timeout_s):
            return await answer
    except TimeoutError:
        raise ErrandError(f"no answer within {timeout_s:g} s") from None
    finally:
        pool.cancel(errand)
        errand.let_go(cancel=True)
