"""Which agent a packet goes to: where its conversation is, else the ring's choice within the bounds of load.

Answers come by callback: at once where leases are kept in this process, later where a store has to be asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from gateway.decision import Route
from gateway.leases import LeaseMemory, LeaseTable, Taken, Use
from gateway.packet import FlightPacket
from gateway.routing import DEFAULT_C, Agent, AgentState, pick, pick_other

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = logging.getLogger(__name__)

Answer = Callable[[Agent], None]

_USE = {AgentState.READY: Use.KEEP, AgentState.DRAINING: Use.LEAVE}


def _use(route: Route, owner: str) -> Use:
    agent = route.members.get(owner)
    return _USE.get(agent.state, Use.LOST) if agent is not None else Use.LOST


class Placement:
    """Puts packets on agents; owns the tasks that ask where conversations are."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        leases: LeaseTable,
        *,
        bound: float = DEFAULT_C,
        on_defect: Callable[[], None],
    ) -> None:
        self._leases = leases
        self._loop = loop
        self._bound = bound
        self._on_defect = on_defect
        self._tasks: set[asyncio.Task[None]] = set()

    def pick(self, route: Route, affinity: bytes) -> Agent:
        """The ring's choice for a packet that is on its own."""
        return pick(route.ring, affinity, route.load, self._bound)

    def another(self, route: Route, affinity: bytes, tried: Collection[str]) -> Agent | None:
        """The next choice after agents that failed, first of the same zone; ``None`` when all were tried."""
        for ring in dict.fromkeys((route.ring, route.wider)):
            agent = pick_other(ring, affinity, route.load, tried, self._bound)
            if agent is not None:
                return agent
        return None

    @staticmethod
    def lease_key(packet: FlightPacket) -> bytes:
        """What a conversation's place goes by: it may be at one agent for each thing that it asks for."""
        return b"%s\0%s" % (packet.capabilities.label.encode(), packet.affinity)

    def place(self, route: Route, packet: FlightPacket, key: bytes, now: float, answer: Answer) -> None:
        """Tell `answer` the agent, and hold the lease under `key` until `release`.

        Args:
            route: where the packet may go.
            packet: one of a conversation.
            key: `lease_key` of `packet`.
            now: seconds since the epoch.
            answer: called before this returns, unless a store has to be asked.

        """
        leases = self._leases
        leases.hold(key)
        wanted = self.pick(route, packet.affinity)
        if isinstance(leases, LeaseMemory):
            taken = leases.take_now(key, wanted=wanted.name, usable=lambda owner: _use(route, owner), now=now)
            answer(self._agent(route, taken, wanted))
        else:
            self._later(self._ask(leases, route, key, wanted, now), wanted, answer)

    def release(self, key: bytes, now: float) -> None:
        """A packet of the conversation is done with."""
        self._leases.release(key, now)

    @staticmethod
    def _agent(route: Route, taken: Taken | None, wanted: Agent) -> Agent:
        """The lease's owner, if this packet may go there; ``None`` is no answer, and leaves it to the ring."""
        if taken is None or taken.owner == wanted.name or taken.owner not in route.grants:
            return wanted
        return route.members[taken.owner]

    async def _ask(self, leases: LeaseTable, route: Route, key: bytes, wanted: Agent, now: float) -> Agent:
        taken = await leases.take(key, wanted=wanted.name, usable=lambda owner: _use(route, owner), now=now)
        return self._agent(route, taken, wanted)

    def _later(self, question: Coroutine[None, None, Agent], otherwise: Agent, answer: Answer) -> None:
        async def ask() -> None:
            try:
                agent = await question
            except Exception:
                self._on_defect()
                log.exception("a conversation's lease could not be read")
                agent = otherwise
            answer(agent)

        task = self._loop.create_task(ask())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
