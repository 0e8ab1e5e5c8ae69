"""One packet's way from an agent that failed it to the next one: its turn in the budget, its delay, the leftovers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from gateway.messages import Fields, ResponseHead
from gateway.packet import FlightPacket
from gateway.proxy.retries import BUDGET_WAIT_S, UNTIMED_WAIT_S, Cause, Fate, backoff_s
from gateway.refusal import Refusal
from gateway.routes import Route

if TYPE_CHECKING:
    from gateway.proxy.plane import DataPlane
    from gateway.proxy.upstream import UpstreamConnection

LEFTOVER_BYTES: Final = 65536
LEFTOVER_S: Final = 1.0
"""How much of an answer that nobody wants is read, and for how long, to keep its connection in use."""


class Retry:
    """A packet's retries, from its first failure to the beginning of its answer."""

    __slots__ = (
        "_attempts",
        "_budgeted",
        "_cause",
        "_deadline",
        "_give_up",
        "_go",
        "_plane",
        "_soonest",
        "_timer",
        "otherwise",
        "tried",
    )

    def __init__(self, plane: DataPlane, go: Callable[[], None], give_up: Callable[[Refusal], None]) -> None:
        """Args: `go` is called when it is time for the next agent, `give_up` when the budget has let none through."""
        self.tried: list[str] = []
        """Names of agents that failed the packet."""
        self.otherwise: Refusal | None = None
        """What the caller is told if nobody else can be asked after all."""
        self._plane = plane
        self._go = go
        self._give_up = give_up
        self._budgeted = False
        self._cause = Cause.UNREACHABLE
        self._attempts = 0
        self._deadline = inf
        """The packet's, by the loop's time; so is `_soonest`."""
        self._soonest = 0.0
        """When the only agent that there is may be asked again."""
        self._timer: asyncio.TimerHandle | None = None

    def ask(
        self,
        cause: Cause,
        otherwise: Refusal,
        *,
        safe: bool,
        failed: str,
        attempts: int,
        deadline: float,
        packet: FlightPacket,
        route: Route | Refusal,
    ) -> bool:
        """Whether the packet is sent once more; then `go` follows, or `give_up`.

        Args:
            cause: how it failed.
            otherwise: what the caller is told then.
            safe: whether it may be sent again, whatever has become of it so far.
            failed: the name of the agent.
            attempts: how often the packet was sent, or was about to be.
            deadline: the packet's, by the loop's time; infinite without one.
            packet: the packet.
            route: where it may go by now.

        """
        retries = self._plane.retries
        self.end()
        self.otherwise = otherwise
        self._cause = cause
        self._attempts = attempts
        self._deadline = deadline
        self.tried.append(failed)
        fate = self._hindered(safe=safe, packet=packet, route=route)
        if fate is None:
            if retries.budget.take():
                self._granted()
                return True
            # An answer is there already: it is better than none.
            if cause is not Cause.ANSWERED and retries.budget.wait(self._granted):
                self._timer = self._plane.loop.call_later(BUDGET_WAIT_S, self._no_turn)
                return True
            fate = Fate.BUDGET_EXHAUSTED
        retries.count(cause, fate)
        return False

    def _hindered(self, *, safe: bool, packet: FlightPacket, route: Route | Refusal) -> Fate | None:
        """Why the packet may not be sent once more, budget aside."""
        plane = self._plane
        retries, now = plane.retries, plane.loop.time()
        self._soonest = now
        if not safe:
            return Fate.NOT_SAFE
        if self._attempts >= retries.limits.attempts:
            return Fate.ATTEMPTS_USED
        if now >= self._deadline:
            return Fate.NO_TIME
        if isinstance(route, Refusal):
            return Fate.NOBODY_ELSE
        if plane.placement.other(route, packet, self.passed_over()) is not None:
            return None
        soonest = retries.benches.soonest(agent.name for agent in route.wider.agents)
        if soonest is None:
            return Fate.NOBODY_ELSE
        until, name = soonest
        if until >= (now + UNTIMED_WAIT_S if self._deadline == inf else self._deadline):
            return Fate.NO_TIME
        self._soonest = until
        # Everybody else has failed or is out, too: it may be the one that has just failed.
        self.tried = [each for each in self.tried if each != name]
        return None

    def passed_over(self) -> set[str]:
        """Names of agents that are not asked now."""
        return {*self.tried, *self._plane.retries.benches.out(self._plane.loop.time())}

    def _granted(self) -> None:
        """The budget has room: go on after a moment."""
        plane = self._plane
        if self._timer is not None:
            self._timer.cancel()
        self._budgeted = True
        plane.retries.count(self._cause, Fate.RETRIED)
        soonest = max(self._soonest, plane.loop.time())
        left_s = max(0.0, self._deadline - soonest)
        delay_s = backoff_s(self._attempts, plane.retries.limits.backoff_s, plane.entropy(32) / (1 << 32), left_s)
        self._timer = plane.loop.call_at(soonest + delay_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self._go()

    def _no_turn(self) -> None:
        """It has waited for the budget long enough."""
        self._timer = None
        self._plane.retries.budget.leave(self._granted)
        self._plane.retries.count(self._cause, Fate.BUDGET_EXHAUSTED)
        assert self.otherwise is not None
        self._give_up(self.otherwise)

    def end(self) -> None:
        """An answer begins, or nothing more will come: make room for others."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        budget = self._plane.retries.budget
        if self._budgeted:
            self._budgeted = False
            budget.give_back()
        elif timer is not None:
            budget.leave(self._granted)


class Leftover:
    """Reads the rest of an answer that nobody wants, so that its connection can be used again."""

    __slots__ = ("_left", "_stream", "_timer", "_up")

    caller = ""
    """Nobody's any more."""

    def __init__(self, up: UpstreamConnection, stream: int) -> None:
        """Take the place of the exchange that got the answer's head."""
        self._up = up
        self._stream = stream
        self._left = LEFTOVER_BYTES
        self._timer = up.loop.call_later(LEFTOVER_S, self._end, True)
        up.exchanges[stream] = self

    def _end(self, cancel: bool) -> None:
        self._timer.cancel()
        self._up.release(self._stream, cancel=cancel)

    def on_response_data(self, data: bytes, size: int) -> None:
        """A piece of it."""
        self._left -= size
        if self._left < 0:
            self._end(True)
        else:
            self._up.consumed(self._stream, size)

    def on_response_end(self, trailers: Fields | None) -> None:
        """That was all of it."""
        self._end(False)

    def on_upstream_lost(self, *, untouched: bool, malformed: str) -> None:
        """It will not come to its end."""
        self._timer.cancel()

    def revoke(self, refusal: Refusal) -> None:
        """The agent's certificate is revoked."""
        self._end(True)

    def on_response(self, head: ResponseHead, *, ended: bool) -> None:
        """Its head was there before."""

    def upstream_writable(self) -> None:
        """There is nothing to write."""

    def on_turned_away(self, why: str) -> None:
        """It waits for no connection."""

    def on_upstream(self, connection: UpstreamConnection) -> None:
        """It waits for no connection."""

    def on_connect_failed(self, why: str) -> None:
        """It waits for no connection."""

    def on_agent_gone(self) -> None:
        """It waits for no connection."""
