"""Requests that the gateway answers itself: no packets, but what agents ask of it.

They come on the same connections as packets and take the place of an `Exchange` there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from gateway.decision import Snapshot
from gateway.headers import field_value, opens_tunnel
from gateway.identity import Principal
from gateway.messages import Fields, RequestHead, ResponseHead
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
MAX_HELD_BYTES: Final = 64 * 1024 * 1024
"""Of bodies that come, and of answers on their way; beyond it 503."""
_PIECE_BYTES = 64 * 1024
"""How much of an answer is written at a time, while the caller takes it."""

_EXPECT = b"expect"
_ANONYMOUS = Refusal(
    Reason.IDENTITY_REQUIRED,
    "this takes a client certificate: an X.509-SVID with one SPIFFE URI SAN that the gateway's trust bundle "
    "vouches for",
)
_TOO_LARGE = Refusal(Reason.BODY_TOO_LARGE, f"the body may have at most {MAX_BODY_BYTES} bytes")
_TOO_MUCH = Refusal(Reason.OVERLOADED, "too much is on its way already; try again later", retry_after_s=1)
_TOO_MANY = Refusal(Reason.OVERLOADED, "too many such requests are under way; try again later", retry_after_s=1)
_MAX_DIGITS = 15
"""A length of more is beyond every bound, and costs time to read."""
_FAILED = Refusal(Reason.INTERNAL, "the gateway failed to answer; see its log")

Answer = tuple[ResponseHead, bytes]


class LocalHandler(Protocol):
    """Whoever answers."""

    @property
    def prefix(self) -> str:
        """The paths that it answers for: all that begin with it where it ends in ``/``, else itself alone."""

    async def handle(self, head: RequestHead, principal: Principal, body: bytes, peer: str) -> Answer | Refusal:
        """Answer one request of `principal`, who connects from the IP address `peer`."""


class LocalRequests:
    """Has requests answered by handlers, each for paths of its own; owns the tasks that do it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handlers: Iterable[LocalHandler],
        on_defect: Callable[[], None],
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_held_bytes: int = MAX_HELD_BYTES,
        too_large: Refusal = _TOO_LARGE,
    ) -> None:
        """Nothing is asked yet.

        Args:
            loop: where the tasks run.
            handlers: answer.
            on_defect: told when they fail to.
            max_body_bytes: of a request.
            max_held_bytes: of all bodies, and of answers on their way.
            too_large: told to whoever sends a longer body.

        """
        self.max_body_bytes = max_body_bytes
        self.too_large = too_large
        self._room = max_held_bytes
        self._handlers = tuple((handler.prefix.encode("ascii"), handler) for handler in handlers)
        self._questions = Questions(loop, on_defect)

    def concerns(self, head: RequestHead) -> bool:
        """Whether a request is for the gateway itself, and no packet."""
        if opens_tunnel(head) or self._handler(head.path) is None:
            return False
        if field_value(head.fields, names.CAPABILITY) is not None:
            return False
        host = head.authority.rpartition(b":")[0] or head.authority
        return not host.lower().endswith(CAPABILITY_DOMAIN)  # a host that names a capability makes it a packet

    def _handler(self, path: bytes) -> LocalHandler | None:
        for prefix, handler in self._handlers:
            if path.startswith(prefix) and (prefix[-1:] == b"/" or path[len(prefix) :][:1] in (b"", b"?")):
                return handler
        return None

    def ask(
        self,
        head: RequestHead,
        principal: Principal,
        body: bytes,
        peer: str,
        answered: Callable[[Answer | Refusal], None],
    ) -> None:
        """Have its handler asked; `answered` is called once, later, or now when there is too much to do."""
        if len(self._questions) >= MAX_UNDER_WAY:
            answered(_TOO_MANY)
            return
        handler = self._handler(head.path)
        assert handler is not None
        question = handler.handle(head, principal, body, peer)
        self._questions.ask(question, answered, _FAILED, "a request to the gateway itself failed")

    def hold(self, size: int) -> bool:
        """Take so many bytes, if there is room for them."""
        if size > self._room:
            return False
        self._room -= size
        return True

    def let_go(self, size: int) -> None:
        """So many are held no more."""
        self._room += size

    async def close(self) -> None:
        """Answer no more."""
        await self._questions.close()


class LocalExchange:
    """A request to the gateway itself, in an `Exchange`'s place: collect its body, have it answered."""

    __slots__ = (
        "_arrived",
        "_body",
        "_held",
        "_left",
        "_requests",
        "_sent",
        "_watch",
        "downstream",
        "ended",
        "finished",
        "head",
        "stream",
    )

    agent = None
    """No agent has it."""

    def __init__(self, requests: LocalRequests, downstream: DownstreamConnection, stream: int) -> None:
        self.downstream = downstream
        self.stream = stream
        self.finished = False
        self.ended = False
        """The request is whole."""
        self._watch: Watch | None = None
        self._arrived = 0
        """Bytes of the request's body."""
        self._requests = requests
        self._body = bytearray()
        self._held = 0
        self._left: memoryview | None = None
        """What of the answer's body has not been written, once the answer has begun."""
        self._sent = 0

    def begin(self, head: RequestHead, *, ended: bool) -> None:
        """Take the request's head."""
        self.head = head
        if self.downstream.principal is None:
            self._answer(_ANONYMOUS)
        elif ended:
            self.on_request_end(None)
        elif self._is_too_long(field_value(head.fields, b"content-length") or b"0"):
            self._answer(self._requests.too_large)
        elif (field_value(head.fields, _EXPECT) or b"").lower() == b"100-continue":
            self.downstream.send_response(self.stream, ResponseHead(100, []), ended=False)

    def _is_too_long(self, length: bytes) -> bool:
        return len(length) > _MAX_DIGITS or int(length) > self._requests.max_body_bytes

    def on_request_data(self, data: bytes, size: int) -> None:
        """A piece of the body."""
        self._arrived += len(data)
        self.downstream.consumed(self.stream, size)
        if self.finished or self._left is not None:
            return
        if len(self._body) + len(data) > self._requests.max_body_bytes:
            self._answer(self._requests.too_large)
        elif not self._requests.hold(len(data)):
            self._answer(_TOO_MUCH)
        else:
            self._held += len(data)
            self._body += data

    def on_request_end(self, trailers: Fields | None) -> None:
        """The request is whole: have it answered."""
        self.ended = True
        principal = self.downstream.principal
        if self._left is not None or self.finished:
            return
        assert principal is not None
        plane = self.downstream.plane
        stopped = plane.snapshot.revocations.refusal_of(principal, plane.clock())
        if stopped is not None:
            self._answer(stopped)
            return
        body, self._body = bytes(self._body), bytearray()
        self._requests.ask(self.head, principal, body, self.downstream.peer, self._answer)

    def on_caller_gone(self) -> None:
        """The caller broke off; what it asked for is done all the same."""
        if not self.finished:
            self._finish()

    def downstream_writable(self) -> None:
        """The caller's side takes data again."""
        if self._left is not None and not self.finished and not self.downstream.congested:
            self._write(self._left)

    def tick(self, now: float) -> None:
        """Look at the clocks, as `Exchange.tick`."""
        watch = self._watch
        if watch is None:
            watch = self._watch = Watch(self.downstream.plane.clocks, now, self._arrived)
        if self._left is not None:
            if watch.look(now, Phase.OPEN, self._arrived, self._sent) is not None:
                self.downstream.reset(self.stream)
                self._finish()
            return
        overdue = watch.look(now, Phase.ASKED if self.ended else Phase.UPLOADING, self._arrived, 0)
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
        if self._left is not None:
            self.downstream.reset(self.stream)  # an answer under way is broken off
            self._finish()
            return
        if not isinstance(found, Refusal) and not self._hold_answer(len(found[1])):
            found = _TOO_MUCH
        if isinstance(found, Refusal):
            revision = self.downstream.plane.snapshot.revision
            found = answer(found, content_type=b"", flight_id="", revision=revision)
        head, body = found
        if self.head.method == b"HEAD":
            body = b""
        self.downstream.send_response(self.stream, head, ended=not body)
        if body:
            self._write(memoryview(body))
        else:
            self._finish()

    def _hold_answer(self, size: int) -> bool:
        """Hold the answer in the place of what the request's body was."""
        self._requests.let_go(self._held)
        self._held = 0
        if not self._requests.hold(size):
            return False
        self._held = size
        return True

    def _write(self, left: memoryview) -> None:
        """Write as much of the answer as the caller takes."""
        downstream, goes_on = self.downstream, True
        while left and goes_on:
            piece, left = bytes(left[:_PIECE_BYTES]), left[_PIECE_BYTES:]
            self._sent += len(piece)
            goes_on = downstream.send_data(self.stream, piece)
        self._left = left
        if not left:
            downstream.end(self.stream, None)
            self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._body.clear()
        self._left = None
        held, self._held = self._held, 0
        self._requests.let_go(held)
        self.downstream.release(self.stream)
