"""A request at the door: it waits in an exchange's place, becomes one, or is turned away with a prebuilt answer.

What is turned away was neither decided nor recorded one by one: it is counted (`Door.shed`), and told of once a second.
Callers that send on all the same are not read for a while: what they send then waits in their own memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from time import perf_counter
from typing import TYPE_CHECKING, Final

from gateway.headers import field_value
from gateway.messages import Fields, RequestHead, ResponseHead
from gateway.overload import Caller, Door, Entry, Push
from gateway.packet import fields as names
from gateway.proxy.exchange import Exchange
from gateway.refusal import Reason, Refusal, answer

if TYPE_CHECKING:
    from gateway.decision import Snapshot
    from gateway.proxy.downstream import DownstreamConnection

log = logging.getLogger(__name__)

HOLDS_INTERVAL_S: Final = 0.02
MAX_HOLD_S: Final = 5.0
STALE_AFTER_S: Final = 0.1
"""What waited for so long to be read is not worth serving any more."""
ROOM_AFTER_S: Final = 0.05
"""When nobody was turned away for so long, there is room for those who are held."""

_OVERLOADED = "the gateway has more to do than it can; send nothing until retry-after has passed"
_WHY: Final = {
    Entry.QUEUE: (Reason.OVERLOADED, _OVERLOADED),
    Entry.LATE: (Reason.OVERLOADED, _OVERLOADED),
    Entry.STALE: (Reason.OVERLOADED, _OVERLOADED),
    Entry.FULL: (Reason.OVERLOADED, _OVERLOADED),
    Entry.LEVEL: (Reason.OVERLOADED, _OVERLOADED),
    Entry.RECORDER: (Reason.NOT_RECORDED, "what is handed on must be recorded, and cannot be now; try again later"),
    Entry.CONCURRENCY: (Reason.RATE_LIMITED, "too many requests of yours are under way; wait for some of them"),
    Entry.RATE: (Reason.RATE_LIMITED, "you send more requests than a caller may; slow down"),
}

_answers: dict[tuple[Entry, int, bool], tuple[ResponseHead, bytes]] = {}


def prebuilt(entry: Entry, retry_after_s: int, content_type: bytes) -> tuple[ResponseHead, bytes]:
    """The answer to a request that is turned away: one object for all that are alike."""
    grpc = content_type.startswith(b"application/grpc")
    key = (entry, retry_after_s, grpc)
    found = _answers.get(key)
    if found is None:
        reason, detail = _WHY[entry]
        refusal = Refusal(reason, detail, retry_after_s=retry_after_s)
        found = answer(refusal, content_type=content_type if grpc else b"", flight_id="", revision="")
        _answers[key] = found
    return found


class Arrival:
    """A request that has not come in yet."""

    __slots__ = (
        "_came_at",
        "_ended",
        "_held",
        "_trailers",
        "caller",
        "downstream",
        "finished",
        "head",
        "since",
        "stream",
    )

    agent = None
    """No agent has it."""

    def __init__(self, downstream: DownstreamConnection, stream: int, caller: Caller) -> None:
        self.downstream = downstream
        self.stream = stream
        self.caller = caller
        self.since = 0.0
        self.finished = False
        self._came_at = 0.0
        self._ended = False
        self._trailers: Fields | None = None
        self._held: list[tuple[bytes, int]] = []
        """Its body so far."""

    def begin(self, head: RequestHead, entry: Entry, now: float, *, ended: bool) -> None:
        """Wait, or go."""
        self.head = head
        self._came_at = now
        self._ended = ended
        if entry is Entry.WAIT:
            self.downstream.plane.door.wait(self, now)
        else:
            self.turn_away(entry)

    @property
    def connection(self) -> DownstreamConnection:
        """On which it came."""
        return self.downstream

    # -- from the door ----------------------------------------------------------------------------------

    def enter(self) -> None:
        """Come in: an exchange takes this place, and is told all that has happened."""
        if self.finished:
            return
        self.finished = True
        downstream, stream = self.downstream, self.stream
        exchange = Exchange(downstream.plane, downstream, stream)
        exchange.waited_s = perf_counter() - self._came_at
        downstream.exchanges[stream] = exchange
        held, self._held = self._held, []
        try:
            downstream.resume()
            exchange.begin(self.head, ended=self._ended and not held and self._trailers is None)
            for data, size in held:
                if not exchange.finished:
                    exchange.on_request_data(data, size)
            if self._ended and not exchange.finished and (held or self._trailers is not None):
                exchange.on_request_end(self._trailers)
        except Exception:
            # As of what is read: a defect costs this connection only.
            downstream.plane.telemetry.defect()
            log.exception("a connection was closed by a defect")
            downstream.abort()

    def turn_away(self, entry: Entry) -> None:
        """Answer with why not."""
        if self.finished:
            return
        downstream = self.downstream
        retry_after_s = downstream.plane.door.retry_after_s(entry)
        head, body = prebuilt(entry, retry_after_s, field_value(self.head.fields, names.CONTENT_TYPE) or b"")
        self._answer(head, body)
        downstream.told_to_wait(retry_after_s)

    def _answer(self, head: ResponseHead, body: bytes) -> None:
        downstream, stream = self.downstream, self.stream
        if self.head.method == b"HEAD":
            body = b""
        downstream.send_response(stream, head, ended=not body)
        if body:
            downstream.send_data(stream, body)
            downstream.end(stream, None)
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._held = []
        self.downstream.release(self.stream)

    # -- from the caller --------------------------------------------------------------------------------

    def on_request_data(self, data: bytes, size: int) -> None:
        """A piece of the caller's body."""
        if self._held:
            self.downstream.pause()  # not for the first piece: most bodies have no second one
        self._held.append((data, size))

    def on_request_end(self, trailers: Fields | None) -> None:
        """The caller's message is whole."""
        self._ended = True
        self._trailers = trailers

    def on_caller_gone(self) -> None:
        """The caller broke off."""
        if not self.finished:
            self._leave(Entry.GONE)
            self._finish()

    def downstream_writable(self) -> None:
        """The caller's side takes data again: there is none yet."""

    def tick(self, now: float) -> None:
        """Look at the clocks: it is here for too short a time."""

    def judge_again(self, snapshot: Snapshot, now: float) -> None:
        """A new snapshot: it is judged when it comes in."""

    def revoke(self, refusal: Refusal) -> None:
        """The caller's identity has ended."""
        self.refuse_bad_request(refusal)

    def cut_off(self, refusal: Refusal) -> None:
        """There is no more time."""
        self.refuse_bad_request(refusal)

    def refuse_bad_request(self, refusal: Refusal) -> None:
        """The message turned out malformed, on a connection that can still answer."""
        if not self.finished:
            self._leave(Entry.GONE)
            self._answer(*answer(refusal, content_type=b"", flight_id="", revision=""))

    def _leave(self, entry: Entry) -> None:
        door = self.downstream.plane.door
        door.leave(self)
        door.refuse(entry, self.caller, perf_counter())


class Holds:
    """Connections that are not read for a while."""

    def __init__(self, loop: asyncio.AbstractEventLoop, door: Door) -> None:
        self._loop = loop
        self._door = door
        self._held: OrderedDict[DownstreamConnection, tuple[float, float]] = OrderedDict()
        """Since when, and until when at most; those held for longest first."""
        self._timer: asyncio.TimerHandle | None = None
        self.counts = {Push.HOLD: 0, Push.CLOSE: 0}
        """How often connections were held, and closed, because their callers ignored ``retry-after``."""

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    def hold(self, connection: DownstreamConnection, push: Push, until: float) -> None:
        """Read nothing of `connection` until then, but for no more than `MAX_HOLD_S`, or until there is room."""
        if connection in self._held:
            return
        self.counts[push] += 1
        now = perf_counter()
        self._held[connection] = (now, min(until, now + MAX_HOLD_S))
        connection.hold()
        if push is Push.CLOSE:
            connection.drain()
        if self._timer is None:
            self._timer = self._loop.call_later(HOLDS_INTERVAL_S, self._look)

    def forget(self, connection: DownstreamConnection) -> None:
        """`connection` is gone."""
        self._held.pop(connection, None)

    def _look(self) -> None:
        self._timer = None
        now, door = perf_counter(), self._door
        room = not door.queue and now - door.turned_away_at > ROOM_AFTER_S
        for connection, (since, until) in list(self._held.items()):
            over = until <= now
            if not (over or room):
                continue
            room = room and over  # one at a time, to see what it brings
            del self._held[connection]
            connection.let_go(stale=now - since > STALE_AFTER_S)
        if self._held:
            self._timer = self._loop.call_later(HOLDS_INTERVAL_S, self._look)

    def close(self) -> None:
        """Let all go."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._held:
            connection, _ = self._held.popitem()
            connection.let_go(stale=False)
