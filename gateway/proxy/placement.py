"""Which agent a packet goes to: where its conversation is, else the ring's choice within the bounds of load.

Answers come by callback: at once where leases are kept in this process, later where a store has to be asked, or a
conversation's context has to be carried over first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from gateway.decision import Forward, Route
from gateway.leases import LeaseMemory, LeaseTable, Taken, Use
from gateway.packet import FlightPacket
from gateway.proxy.migration import Migrations
from gateway.proxy.questions import Questions
from gateway.proxy.upstream import Pool
from gateway.routing import DEFAULT_C, Agent, AgentState, pick, pick_other

Answer = Callable[[Agent | None], None]
"""Told the agent; ``None`` when every one was tried, or none takes a new packet."""

_NOBODY = ""
"""Has the lease of a conversation for which there is no agent."""


class Placement:
    """Puts packets on agents; owns the tasks that ask where conversations are."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        leases: LeaseTable,
        *,
        bound: float = DEFAULT_C,
        pool: Callable[[Agent], Pool],
        on_defect: Callable[[], None],
    ) -> None:
        self._leases = leases
        self._bound = bound
        self._questions = Questions(loop, on_defect)
        self.migrations = Migrations(loop, pool, on_defect)

    def retune(self, bound: float) -> None:
        """Go by another bound of load."""
        self._bound = bound

    @staticmethod
    def lease_key(packet: FlightPacket) -> bytes:
        """What a conversation's place goes by: it may be at one agent for each thing that it asks for."""
        return b"%s\0%s" % (packet.capabilities.label.encode(), packet.affinity)

    def pick(self, forward: Forward) -> Agent:
        """The ring's choice for a new packet."""
        route = forward.route
        return pick(route.ring, forward.packet.affinity, route.load, self._bound, forward.agent)

    def place(self, forward: Forward, key: bytes, now: float, answer: Answer) -> None:
        """Find the agent for a new packet of a conversation, and hold the lease until `release`.

        Args:
            forward: where the packet may go.
            key: `lease_key` of the packet.
            now: seconds since the epoch.
            answer: called before this returns, unless a store or other agents have to be asked.

        """
        leases, route = self._leases, forward.route
        if self.migrations.under_way(key) is None:
            owner = leases.live_at(key, now)
            agent = route.members.get(owner) if owner in route.grants else None
            if agent is not None and agent.state is AgentState.READY:  # as most are
                leases.stay(key, now, same=agent is forward.agent)
                answer(agent)
                return
        else:
            leases.hold(key)
        wanted = None if route.full else self.pick(forward)
        self._take(route, forward.packet, key, wanted, (), now, answer)

    def another(
        self, route: Route, packet: FlightPacket, key: bytes, tried: Collection[str], now: float, answer: Answer
    ) -> None:
        """Find the next agent for a packet that those named in `tried` have failed; its conversation moves with it.

        Args:
            route: where the packet may go.
            packet: the packet.
            key: its lease, which is held already; empty for a packet on its own.
            tried: names of agents.
            now: seconds since the epoch.
            answer: as `place` calls it.

        """
        wanted = self.other(route, packet, tried)
        if wanted is None or not key:
            answer(wanted)
        else:
            self._take(route, packet, key, wanted, tried, now, answer)

    def other(self, route: Route, packet: FlightPacket, tried: Collection[str]) -> Agent | None:
        """The ring's choice among those not named in `tried`; ``None`` when nobody is left."""
        wanted: Agent | None = None
        if route.full is None:
            for ring in dict.fromkeys((route.ring, route.wider)):
                wanted = wanted or pick_other(ring, packet.affinity, route.load, tried, self._bound)
        return wanted

    def release(self, key: bytes, now: float) -> None:
        """A packet of the conversation is done with."""
        self._leases.release(key, now)

    def _take(
        self,
        route: Route,
        packet: FlightPacket,
        key: bytes,
        wanted: Agent | None,
        tried: Collection[str],
        now: float,
        answer: Answer,
    ) -> None:
        leases, migrations = self._leases, self.migrations
        name = wanted.name if wanted is not None else _NOBODY

        def usable(owner: str) -> Use:
            agent = route.members.get(owner)
            if agent is None or owner in tried:
                return Use.LOST
            if wanted is not None and migrations.room and migrations.possible(route, packet, agent, wanted):
                return Use.HAND_OVER
            if agent.state is AgentState.READY:
                return Use.KEEP
            return Use.LEAVE if agent.state is AgentState.DRAINING else Use.LOST

        def settle(taken: Taken | None) -> None:
            """Answer, once the conversation's context is there."""
            previous = route.members.get(taken.previous) if taken is not None and taken.previous else None
            if (
                previous is not None
                and wanted is not None
                and previous.name not in tried
                and migrations.possible(route, packet, previous, wanted)
            ):
                migrations.begin(key, packet, previous, wanted)
            agent = _owner(route, taken, wanted)
            moving = migrations.under_way(key)
            if moving is None:
                answer(agent)
            else:
                moving.add_done_callback(lambda task: None if task.cancelled() else answer(agent))

        if isinstance(leases, LeaseMemory):
            settle(leases.take_now(key, wanted=name, usable=usable, now=now))
            return

        question = leases.take(key, wanted=name, usable=usable, now=now)
        self._questions.ask(question, settle, None, "a conversation's lease could not be read")

    async def close(self) -> None:
        """Ask no more."""
        await self._questions.close()
        await self.migrations.close()


def _owner(route: Route, taken: Taken | None, wanted: Agent | None) -> Agent | None:
    """Where the conversation is, if this packet may go there: one packet's policy moves no conversation.

    Without an answer it is left to the ring.
    """
    if taken is None or taken.owner not in route.grants:
        return wanted
    return route.members[taken.owner]
