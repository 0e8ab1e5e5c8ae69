"""The data plane: what its connections share, and its life from start to drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from gateway.admission import ReplayGuard
from gateway.brokering.broker import Broker
from gateway.brokering.servers import AuthorizationServers
from gateway.decision import EMPTY, Snapshot
from gateway.handoff import Handoff, Outcome
from gateway.leases import LeaseTable
from gateway.overload import Caps, Door, Level, Monitor, OverloadSpec, Push
from gateway.proxy.arrival import Holds
from gateway.proxy.clocks import Clocks
from gateway.proxy.gate import Gate
from gateway.proxy.handshakes import HandshakeQueue
from gateway.proxy.injections import Injections
from gateway.proxy.lifetimes import Lifetimes
from gateway.proxy.listener import SWEEP_PAUSE_S, SWEEP_SLICE_S, Listener
from gateway.proxy.minting import Minting
from gateway.proxy.once import OnceOnly
from gateway.proxy.placement import Placement
from gateway.proxy.records import Records
from gateway.proxy.retries import Retries, RetryLimits
from gateway.proxy.stages import Stage
from gateway.proxy.tuning import Tuning
from gateway.proxy.turn import Turn
from gateway.proxy.upstream import Pool, UpstreamLimits
from gateway.refusal import Reason, Refusal
from gateway.routing import DEFAULT_C, Agent
from gateway.telemetry.trace import Trace
from gateway.verdict import Decided

if TYPE_CHECKING:
    from gateway.proxy.arrival import Arrival
    from gateway.proxy.context_stage import ContextStage
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.local import LocalExchange, LocalRequests

log = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 1.0
DRAIN_TICK_S = 0.05
"""How often it is looked whether callers have left."""
TOLD_AT_MOST = 5
"""Callers that were turned away, told of by name."""
MAX_ALONE = 1024
"""Exchanges that go on though their callers are gone, since they are done once; more are broken off."""
JUDGING_SLICE_S = 0.005
"""How long at a time open exchanges are judged again, while others wait."""


_CUT_OFF = Refusal(Reason.DRAINING, "the gateway is shutting down; try again", retry_after_s=1)


class Telemetry(Protocol):
    """Where the data plane reports to."""

    def begin_trace(self, decided: Decided) -> Trace:
        """The trace context that goes on to the agent."""

    def handoff(self, handoff: Handoff, decided: Decided, trace: Trace, gateway_s: float, duration_s: float) -> None:
        """A handoff ended."""

    def connection_opened(self, listener: str) -> None:
        """A caller connected."""

    def connection_closed(self, listener: str) -> None:
        """A caller's connection is gone."""

    def handshake_failed(self, listener: str, reason: str) -> None:
        """A caller was not let in."""

    def abuse(self, listener: str, reason: str) -> None:
        """A caller broke its protocol, or asked too much of it; `reason` is of a closed set."""

    def judged_again(self, seconds: float) -> None:
        """Everything under way was judged by the newest snapshot, so long after it came into force."""

    def defect(self) -> None:
        """Something failed that should not have."""


class Health(Protocol):
    """Whoever wants to know how agents do."""

    def observed(self, name: str, *, ok: bool, latency_s: float) -> None:
        """The agent answered, or failed a packet, so long after it was asked."""

    def unanswered(self, name: str, waited_s: float) -> None:
        """A packet's time was over before the agent had answered it."""


class DataPlane:
    """Reads one snapshot per request; the control side swaps `snapshot`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        telemetry: Telemetry,
        *,
        upstream_context: Callable[[Agent], ssl.SSLContext],
        tunnel_context: Callable[[str], ssl.SSLContext | None],
        replay: ReplayGuard,
        upstream_limits: UpstreamLimits,
        health: Health,
        leases: LeaseTable,
        clocks: Clocks,
        retries: RetryLimits,
        max_body_bytes: int = sys.maxsize,
        bound: float = DEFAULT_C,
        max_timeout_s: float = 600.0,
        overload: OverloadSpec | None = None,
        caps: Caps | None = None,
        broker: Broker | None = None,
    ) -> None:
        self.loop = loop
        self.turn = Turn(loop)
        self.telemetry = telemetry
        self.tunnel_context = tunnel_context
        """The TLS context for what is inside a tunnel to a host; ``None`` when there is none for it."""
        self.max_timeout_s = max_timeout_s
        self.health = health
        self.clocks = clocks
        self.caps = caps or Caps(max_in_flight=100_000, max_waiting=10_000)
        """By what the packets ask for."""
        overload = overload or OverloadSpec()
        self.door = Door(overload, soon=loop.call_soon, clock=perf_counter, work=time.thread_time, random=random.random)
        self.holds = Holds(loop, self.door)
        self.monitor = Monitor(loop, overload, self._on_level)
        self.max_body_bytes = max_body_bytes
        self.placement = Placement(loop, leases, bound=bound, pool=self.pool, on_defect=telemetry.defect)
        self.listeners: list[Listener] = []
        self.handshakes = HandshakeQueue(loop)
        self.revoked: frozenset[bytes] | None = None
        """Certificates that are revoked, by their marks; ``None`` where no lists are configured."""
        self.clock = time.time
        self.entropy = random.getrandbits
        self.lifetimes = Lifetimes(random.getrandbits)
        self.in_flight = 0
        """Exchanges under way."""
        self.retries = Retries(retries, lambda: self.in_flight)
        self._snapshot = EMPTY
        self._upstream_context = upstream_context
        self._upstream_limits = upstream_limits
        self._pools: dict[str, Pool] = {}
        """By agent name."""
        self._retired: set[Pool] = set()
        """Pools of agents that are gone or have changed, until their last exchange ends."""
        self.records = Records(loop, telemetry.handoff)
        self.gate = Gate(loop, replay, telemetry.defect)
        self.minting = Minting()
        self.stages: tuple[Stage, ...] = ()
        self.injections = Injections(
            loop, broker or Broker(AuthorizationServers(time.monotonic), time.monotonic), telemetry.defect
        )
        self.once: OnceOnly | None = None
        """Knows the packets that are done once; without one, there are none."""
        self.unrecorded = False
        """The flight recorder cannot write: what policy wants recorded is refused."""
        self._alone: set[Exchange] = set()
        """What goes on without its caller."""
        self.local: LocalRequests | None = None
        """Answers what is asked of the gateway itself; without one, such requests are malformed packets."""
        self.context_requests: LocalRequests | None = None
        """The same for contexts."""
        self.contexts: ContextStage | None = None
        """Sees to packets' contexts; it is one of `stages`."""
        self._to_judge: deque[Exchange | LocalExchange | Arrival] = deque()
        """Open exchanges that the snapshot in force has not been asked about."""
        self._judging_since: float | None = None
        self._stopped = False
        """What is still under way is being cut off."""
        self._sweeper: asyncio.Handle | None = None

    @property
    def snapshot(self) -> Snapshot:
        """What is in force."""
        return self._snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Snapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        members = snapshot.routes.members
        for name, pool in list(self._pools.items()):
            agent = members.get(name)
            if agent is pool.agent:
                continue  # as almost all are
            if agent is None or agent.endpoint != pool.agent.endpoint:
                self._retire(self._pools.pop(name))
            else:
                pool.agent = agent
        if (
            snapshot.policies is before.policies
            and snapshot.keys is before.keys
            and snapshot.revocations is before.revocations
        ):
            # What was allowed still is, but perhaps not at an agent that is another one now.
            known = before.routes.members
            self._to_judge += [
                exchange
                for exchange in self.exchanges()
                if (agent := exchange.agent) is not None and members.get(agent.name) is not known.get(agent.name)
            ]
        else:
            self._to_judge = deque(self.exchanges())
        if self._to_judge and self._judging_since is None:
            self._judging_since = perf_counter()
            self.loop.call_soon(self._judge_some)

    def retune(self, tuning: Tuning) -> None:
        """Go by other bounds and clocks from now on; what has begun keeps its clocks."""
        self._upstream_limits = tuning.upstream
        for pool in self._pools.values():
            pool.retune(tuning.upstream)
        self.clocks = tuning.clocks
        self.retries.retune(tuning.retries)
        self.door.retune(tuning.overload)
        self.monitor.retune(tuning.overload)
        self.caps.retune(tuning.max_in_flight_per_capability, tuning.max_pending_per_capability)
        self.max_body_bytes = tuning.max_body_bytes
        self.max_timeout_s = tuning.max_timeout_s
        self.placement.retune(tuning.bound)

    def exchanges(self) -> Iterator[Exchange | LocalExchange | Arrival]:
        """Everything that is open."""
        for listener in self.listeners:
            for connection in listener.connections:
                yield from connection.exchanges.values()
        yield from self._alone

    def _judge_some(self) -> None:
        """Ask the snapshot in force about what is under way, a slice of it in each turn of the loop."""
        # Not the loop's time: that of uvloop stands still within a turn.
        now, until = self.clock(), perf_counter() + JUDGING_SLICE_S
        while self._to_judge:
            exchange = self._to_judge.popleft()
            try:
                exchange.judge_again(self._snapshot, now)
            except Exception:
                # Failing is closed here, too: what cannot be judged does not go on.
                self.telemetry.defect()
                log.exception("an open exchange could not be judged")
                exchange.revoke(Refusal(Reason.INTERNAL, "the gateway failed to decide; see its log"))
            if perf_counter() > until:
                self.loop.call_soon(self._judge_some)
                return
        assert self._judging_since is not None
        self.telemetry.judged_again(perf_counter() - self._judging_since)
        self._judging_since = None

    def revoke(self, revoked: frozenset[bytes] | None) -> None:
        """End what came in, and what went out, over a connection whose other side `revoked` names."""
        self.revoked = revoked
        if not revoked:
            return
        for listener in self.listeners:
            listener.revoke(revoked)
        for pool in (*self._pools.values(), *self._retired):
            pool.revoke(revoked)

    def _retire(self, pool: Pool) -> None:
        self._retired.add(pool)
        pool.retire()

    def pool(self, agent: Agent) -> Pool:
        """The connections to `agent`."""
        pool = self._pools.get(agent.name)
        if pool is None or (pool.agent is not agent and pool.agent.endpoint != agent.endpoint):
            stranger = pool is not None
            pool = Pool(
                agent,
                self.turn,
                self._upstream_limits,
                self._upstream_context,
                self.telemetry.defect,
                self.lifetimes,
                revoked=lambda: self.revoked,
            )
            if stranger:
                # Decided under an earlier snapshot: the agent that has this name now is another one.
                self._retire(pool)
            else:
                self._pools[agent.name] = pool
        return pool

    def in_flight_by_agent(self) -> dict[str, int]:
        """How many packets each agent has, or wait for it, by name."""
        return {name: pool.in_flight + pool.waiting for name, pool in self._pools.items()}

    def leave_alone(self, exchange: Exchange) -> bool:
        """Let `exchange` go on without its caller, if there is room for it."""
        if self._stopped or len(self._alone) >= MAX_ALONE:
            return False
        self._alone.add(exchange)
        self.in_flight += 1
        return True

    def ended(self, exchange: Exchange, outcome: Outcome, refusal: Refusal | None) -> None:
        """An exchange is over."""
        if exchange in self._alone:
            self._alone.discard(exchange)
            self.in_flight -= 1
        self.records.add(exchange, outcome, refusal)

    @property
    def pushed_back(self) -> Mapping[Push, int]:
        """How often connections were held and closed, because requests went on within a ``retry-after``."""
        return self.holds.counts

    @property
    def held(self) -> int:
        """How many connections are held."""
        return len(self.holds)

    @property
    def refused_connections(self) -> int:
        """How many were closed at once, for lack of room."""
        return sum(listener.refused for listener in self.listeners)

    def _on_level(self, level: Level) -> None:
        self.door.level = level

    async def start(self) -> None:
        """Bind every listener.

        Raises:
            OSError: an address cannot be bound.

        """
        for listener in self.listeners:
            await listener.start()
        self.monitor.start()
        self._sweep()

    def _sweep(self) -> None:
        now, wall = self.loop.time(), self.clock()
        for listener in self.listeners:
            listener.sweep(now, wall)
            if self.door.level:
                listener.part_with_some(now)
        self._tell_of(self.door.sweep(perf_counter()))
        for exchange in list(self._alone):
            exchange.tick(now)
        self._sweep_pools([*self._pools.values(), *self._retired], now, wall)

    def _sweep_pools(self, pools: list[Pool], now: float, wall: float) -> None:
        """Look at some of `pools`, then, after those who wait meanwhile, at the others."""
        until = perf_counter() + SWEEP_SLICE_S
        while pools:
            pools.pop().sweep(now, wall)
            if perf_counter() > until:
                self._sweeper = self.loop.call_later(SWEEP_PAUSE_S, self._sweep_pools, pools, now, wall)
                return
        self._retired = {pool for pool in self._retired if not pool.empty}
        self._sweeper = self.loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    @staticmethod
    def _tell_of(turned_away: dict[str, int]) -> None:
        """One line for all that were turned away at the door since the last one."""
        if turned_away:
            most = sorted(turned_away.items(), key=itemgetter(1), reverse=True)[:TOLD_AT_MOST]
            told = ", ".join(f"{count} of {name or 'nobody known'}" for name, count in most)
            log.warning("overload: turned away %d requests: %s", sum(turned_away.values()), told)

    async def stop(self, drain_timeout_s: float, force: asyncio.Event) -> bool:
        """Accept nobody else, let what is under way finish, close.

        Args:
            drain_timeout_s: how long that may take.
            force: ends it before.

        Returns:
            ``False`` when something was cut off.

        """
        deadline = self.loop.time() + drain_timeout_s
        self.monitor.stop()
        self.holds.close()
        for listener in self.listeners:
            await listener.stop_accepting()
        while sum(listener.leave(self.loop.time()) for listener in self.listeners) or self._alone:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(force.wait(), DRAIN_TICK_S)
            if force.is_set() or self.loop.time() > deadline:
                break
        self._stopped = True
        under_way = list(self.exchanges())
        for exchange in under_way:
            exchange.cut_off(_CUT_OFF)
        for listener in self.listeners:
            listener.drain()
        await asyncio.sleep(0)  # one more turn of the loop writes the last answers
        if self._sweeper is not None:
            self._sweeper.cancel()
        for listener in self.listeners:
            listener.close()
        if self.once is not None:
            await self.once.close()
        await self.placement.close()
        await self.gate.close()
        for asked in (self.local, self.context_requests, self.contexts):
            if asked is not None:
                await asked.close()
        await self.injections.close()
        self.records.settle()
        for pool in (*self._pools.values(), *self._retired):
            await pool.close()
        return not under_way
