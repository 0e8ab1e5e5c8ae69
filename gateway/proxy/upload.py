"""A request's body on its way to an agent: held until a connection is there, kept in case another agent is asked.

The caller gets its window back as the agent's side takes what came, so that no more is held than a window has room for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.messages import Fields
from gateway.proxy.body import GuardedBody
from gateway.proxy.retries import MAX_KEPT_BYTES
from gateway.refusal import Refusal

if TYPE_CHECKING:
    from gateway.proxy.absent import AbsentCaller
    from gateway.proxy.downstream import DownstreamConnection
    from gateway.proxy.upstream import UpstreamConnection


class Upload:
    """One request's body and its end."""

    __slots__ = (
        "_again",
        "_caller",
        "_guard",
        "_held",
        "_kept",
        "_kept_bytes",
        "_owed",
        "_stream",
        "_trailers",
        "_up",
        "_up_stream",
        "ended",
        "sent",
    )

    def __init__(self, caller: DownstreamConnection, stream: int) -> None:
        self.ended = False
        """The caller's message is whole."""
        self.sent = False
        """So is what the agent was sent."""
        self._caller: DownstreamConnection | AbsentCaller = caller
        self._stream = stream
        self._trailers: Fields | None = None
        self._guard: GuardedBody | None = None
        """Until it is whole, a body that no agent may have as it comes."""
        self._held: list[tuple[bytes, int]] = []
        """What came before an agent's connection was ready."""
        self._up: UpstreamConnection | None = None
        self._up_stream = 0
        self._kept: list[bytes] | None = []
        """What has been sent on, to be sent again; ``None`` when it is too much, or needed no more."""
        self._kept_bytes = 0
        self._again = False
        self._owed = 0
        """What the agent's side has not taken, so that the caller gets no new window for it."""

    # -- from the caller --------------------------------------------------------------------------------

    def guard(self, body: GuardedBody) -> None:
        """Let nothing pass but what `body` gives out."""
        self._guard = body

    def take(self, data: bytes, size: int) -> Refusal | None:
        """Take a piece that counts `size` in flow control; gives why no agent may have it."""
        guard = self._guard
        if guard is None:
            self._pass(data, size)
            return None
        taken = guard.take(data, size)
        if isinstance(taken, Refusal):
            return taken
        if taken is not None:
            self._pass(*taken)
        elif guard.whole is not None:
            self._caller.consumed(self._stream, size)
        return None

    def end(self, trailers: Fields | None) -> Refusal | bytes | None:
        """The caller's message is whole.

        Gives why no agent may have it, or all of a body that goes on only once it is whole, and is `put`.
        """
        self.ended = True
        self._trailers = trailers
        return self.clear()

    def clear(self) -> Refusal | bytes | None:
        """All of the body is there, if not the message's end; gives what `end` gives."""
        guard, self._guard = self._guard, None
        if guard is not None:
            last = guard.end()
            if isinstance(last, Refusal):
                return last
            if guard.whole is not None:
                return bytes(guard.whole)
            if last is not None:
                self._pass(*last)
        if self.ended:
            self._end()
        return None

    def put(self, body: bytes) -> None:
        """Let `body` pass, which is the whole of it."""
        self._held = [(body, 0)] if body else []

    def go_on_without(self, caller: AbsentCaller) -> None:
        """The caller is gone, and what is under way goes on; `caller` takes its place."""
        self._caller = caller

    # -- to the agent -----------------------------------------------------------------------------------

    @property
    def at_once(self) -> bool:
        """Whether the request's head is all there is to send."""
        return self.ended and not self._held and self._trailers is None

    @property
    def stalled(self) -> bool:
        """Whether it waits for the agent's side, rather than for the caller."""
        return self._owed > 0 or (self._up is None and bool(self._held))

    @property
    def repeatable(self) -> bool:
        """Whether all that was sent on can be sent again."""
        return self._kept is not None

    def start(self, connection: UpstreamConnection, stream: int, *, head_only: bool) -> None:
        """Send what there is on `stream`; `head_only` when the head said that this is nothing."""
        self._up, self._up_stream = connection, stream
        if head_only:
            self.sent = True
            return
        held, self._held = self._held, []
        for data, size in held:
            self._pass(data, size)
        if held:
            if not self._owed:
                self._caller.resume()
            elif self._again:
                self.writable()  # what an agent before this one had not taken
        if self.ended:
            self._end()

    def rewind(self) -> None:
        """The agent is gone: be ready to send everything, which is `repeatable`, to another."""
        self._up = None
        kept = self._kept
        assert kept is not None
        self.sent = False
        self._again = True
        self._held = [*((data, 0) for data in kept), *self._held]
        self._kept, self._kept_bytes = [], 0

    def keep_no_more(self) -> None:
        """No other agent will be asked."""
        self._kept = None

    def writable(self) -> None:
        """The agent's side takes data again."""
        up = self._up
        if up is not None and self._owed and not up.congested:
            owed, self._owed = self._owed, 0
            self._caller.consumed(self._stream, owed)
            self._caller.resume()

    def drop(self) -> None:
        """Nobody needs it any more."""
        self._up = None
        self._held = []
        self._kept = None
        self._guard = None

    def _pass(self, data: bytes, size: int) -> None:
        up = self._up
        if up is None:
            if self._held:
                self._caller.pause()  # not for the first piece: most bodies have no second one
            self._held.append((data, size))
            return
        kept = self._kept
        if kept is not None:
            kept.append(data)
            self._kept_bytes += len(data)
            if self._kept_bytes > MAX_KEPT_BYTES:
                self._kept = None
        if up.send_data(self._up_stream, data):
            if not self._owed:
                self._caller.consumed(self._stream, size)
                return
        else:
            self._caller.pause()
        self._owed += size

    def _end(self) -> None:
        if self._up is not None and not self._held:
            self.sent = True
            self._up.end(self._up_stream, self._trailers)
