"""Requests that the gateway answers itself: no packets, but what agents ask of it.

They come on the same connections as packets and take the place of an `Exchange` there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from gateway.decision import Snapshot
from gateway.identity import Principal
from gateway.messages import Fields, RequestHead, ResponseHead, field_value
from gateway.packet import fields as names
from gateway.packet.packet import CAPABILITY_DOMAIN
from gateway.proxy.clocks import Phase, Watch
from gateway.proxy.questions import Questions
from gateway.refusal import Reason, Refusal, answer

if TYPE_CHECKING:
    from gateway.proxy.downstream import DownstreamConnection

MAX_BODY_BYTES: Final = 64 * 1024
MAX_UNDER_WAY: Final = 1024
"""Requests that are being answered; beyond it 503."""

_EXPECT = b"expect"
_ANONYMOUS = Refusal(
    Reason.IDENTITY_REQUIRED,
    "this takes a client certificate: an X.509-SVID with one SPIFFE URI SAN that the gateway's trust bundle "
    "vouches for",
)
_TOO_LARGE = Refusal(Reason.BODY_TOO_LARGE, f"the body may have at most {MAX_BODY_BYTES} bytes")
_TOO_MANY = Refusal(Reason.OVERLOADED, "too many such requests are under way; try again later", retry_after_s=1)
_FAILED = Refusal(Reason.INTERNAL, "the gateway failed to answer; see its log")

Answer = tuple[ResponseHead, bytes]


class LocalHandler(Protocol):
    """Whoever answers."""

    @property
    def prefix(self) -> str:
        """What the paths begin with that it answers for."""

    async def handle(self, principal: Principal, method: str, path: str, body: bytes, peer: str) -> Answer | Refusal:
        """Answer one request of `principal`, who connects from the IP address `peer`; `path` has the query, too."""


class LocalRequests:
    """Has requests answered by a handler; owns the tasks that do it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: LocalHandler, on_defect: Callable[[], None]) -> None:
        self._handler = handler
        self._prefix = handler.prefix.encode("ascii")
        self._questions = Questions(loop, on_defect)

    def concerns(self, head: RequestHead) -> bool:
        """Whether a request is for the gateway itself, and no packet."""
        if not head.path.startswith(self._prefix) or head.opens_tunnel:
            return False
        if field_value(head.fields, names.CAPABILITY) is not None:
            return False
        host = head.authority.rpartition(b":")[0] or head.authority
        return not host.lower().endswith(CAPABILITY_DOMAIN)  # a host that names a capability makes it a packet

    def ask(
        self,
        head: RequestHead,
        principal: Principal,
        body: bytes,
        peer: str,
        answered: Callable[[Answer | Refusal], None],
    ) -> None:
        """Have the handler asked; `answered` is called once, later, or now when there is too much to do."""
        if len(self._questions) >= MAX_UNDER_WAY:
            answered(_TOO_MANY)
            return
        method, path = head.method.decode("latin-1"), head.path.decode("latin-1")

        question = self._handler.handle(principal, method, path, body, peer)
        self._questions.ask(question, answered, _FAILED, "a request to the gateway itself failed")

    async def close(self) -> None:
        """Answer no more."""
        await self._questions.close()


class LocalExchange:
    """A request to the gateway itself, in an `Exchange`'s place: collect its body, have it answered."""

    __slots__ = ("_body", "_requests", "_watch", "downstream", "ended", "finished", "head", "stream")

    agent = None
    """No agent has it."""

    def __init__(self, requests: LocalRequests, downstream: DownstreamConnection, stream: int) -> None:
        self.downstream = downstream
        self.stream = stream
        self.finished = False
        self.ended = False
        """The request is whole."""
        self._watch: Watch | None = None
        self._requests = requests
        self._body = bytearray()

    def begin(self, head: RequestHead, *, ended: bool) -> None:
        """Take the request's head."""
        self.head = head
        if self.downstream.principal is None:
            self._answer(_ANONYMOUS)
        elif ended:
            self.on_request_end(None)
        elif (field_value(head.fields, _EXPECT) or b"").lower() == b"100-continue":
            self.downstream.send_response(self.stream, ResponseHead(100, []), ended=False)

    def on_request_data(self, data: bytes, size: int) -> None:
        """A piece of the body."""
        self._body += data
        self.downstream.consumed(self.stream, size)
        if len(self._body) > MAX_BODY_BYTES:
            self._answer(_TOO_LARGE)

    def on_request_end(self, trailers: Fields | None) -> None:
        """The request is whole: have it answered."""
        self.ended = True
        principal = self.downstream.principal
        assert principal is not None
        plane = self.downstream.plane
        stopped = plane.snapshot.revocations.refusal_of(principal, plane.clock())
        if stopped is not None:
            self._answer(stopped)
            return
        self._requests.ask(self.head, principal, bytes(self._body), self.downstream.peer, self._answer)

    def on_caller_gone(self) -> None:
        """The caller broke off; what it asked for is done all the same."""
        if not self.finished:
            self._finish()

    def downstream_writable(self) -> None:
        """The caller's side takes data again: an answer is written in one piece."""

    def tick(self, now: float) -> None:
        """Look at the clocks, as `Exchange.tick`."""
        watch = self._watch
        if watch is None:
            watch = self._watch = Watch(self.downstream.plane.clocks, now, len(self._body))
        overdue = watch.look(now, Phase.ASKED if self.ended else Phase.UPLOADING, len(self._body), 0)
        if overdue is not None:
            self._answer(overdue)

    def judge_again(self, snapshot: Snapshot, now: float) -> None:
        """A new snapshot: what is asked of the gateway itself is judged when it is asked."""

    def revoke(self, refusal: Refusal) -> None:
        """The caller's identity has ended."""
        self._answer(refusal)

    def cut_off(self, refusal: Refusal) -> None:
        """There is no more time."""
        self._answer(refusal)

    def refuse_bad_request(self, refusal: Refusal) -> None:
        """The message turned out malformed, on a connection that can still answer."""
        self._answer(refusal)

    def _answer(self, found: Answer | Refusal) -> None:
        if self.finished:
            return
        if isinstance(found, Refusal):
            revision = self.downstream.plane.snapshot.revision
            found = answer(found, content_type=b"", flight_id="", revision=revision)
        head, body = found
        if self.head.method == b"HEAD":
            body = b""
        downstream = self.downstream
        downstream.send_response(self.stream, head, ended=not body)
        if body:
            downstream.send_data(self.stream, body)
            downstream.end(self.stream, None)
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._body.clear()
        self.downstream.release(self.stream)
