"""What is observed of all agents, and what follows from it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from heapq import nsmallest
from random import Random
from types import MappingProxyType
from typing import Final, TypeVar

from gateway.membership.health.checks import Checks
from gateway.membership.health.members import Members
from gateway.membership.health.outliers import sweep
from gateway.membership.health.probe import Context
from gateway.membership.health.record import Reason, Record
from gateway.membership.health.shares import Usual, reconsider, usual
from gateway.membership.health.spec import CheckSpec, HealthSpec
from gateway.routing import Agent, AgentState

log = logging.getLogger(__name__)

TICK_S: Final = 1.0
"""How often it is looked whether an ejection is over."""

RECONSIDER_S: Final = 5.0
"""How often shares may change, all at once."""

MAX_TOLD: Final = 100
"""Agents of each kind that `Health.status` tells of."""

_AT_A_TIME: Final = 1000
"""Agents looked at in one step."""

_PATIENCE: Final = 2.0
"""An agent that does not answer has failed after so many times as long as it usually takes."""

_LEAST_PATIENCE_S: Final = 1.0

_EPSILON_S: Final = 1e-6
"""Added to a latency, which has to have a logarithm."""

_NO_CHECKS: Mapping[str, CheckSpec] = MappingProxyType({})
_log = math.log

Value = TypeVar("Value")


class Health:
    """Whether agents take packets, and how large their shares are.

    Everything happens on the event loop; but for the checks in `run`, nothing does I/O.
    """

    def __init__(
        self,
        spec: HealthSpec,
        *,
        on_change: Callable[[], None],
        clock: Callable[[], float],
        rng: Random,
        context: Context,
    ) -> None:
        """Nobody is followed yet.

        Args:
            spec: when what happens.
            on_change: called after an agent's state or share changed by itself, for `overlay` to be asked anew.
            clock: seconds, of the clock that the event loop waits by.
            rng: spreads the checks.
            context: gives the TLS context for a check of an agent that is reached over TLS.

        """
        self._spec = spec
        self._on_change = on_change
        self._clock = clock
        self._checks = Checks(context, self._on_answer, clock, rng)
        self._members = Members(spec, self._checks.add)
        self._usual: Usual = {}
        self._swept_at = self._reconsidered_at = clock()
        self._defects = 0

    # -- what is observed ---------------------------------------------------------------------------------

    def observed(self, name: str, *, ok: bool, latency_s: float) -> None:
        """A packet fared well or not at the agent `name`.

        Args:
            name: an agent; one that is not followed is passed over.
            ok: whether it answered, with a status that is none of `FAILURE_STATUSES`, and to the end.
            latency_s: from the packet's way to the agent to the head of its answer; of failures it does not count.

        """
        record = self._members.all.get(name)
        if record is None:
            return
        if ok:
            record.good += 1
            record.in_a_row = 0
            record.log_latency += _log(latency_s + _EPSILON_S)
        else:
            self._failed(record)

    def unanswered(self, name: str, waited_s: float) -> None:
        """The agent `name` did not answer before the packet's time was over.

        A failure only if it had twice as long as it, or its peers, usually take, and a second at least: how long a
        packet may take is for its sender to say, who must not get agents ejected by it.
        """
        record = self._members.all.get(name)
        if record is None:
            return
        known_s = max(record.evidence.latency_s, self._usual.get(record.agent.capabilities, 0.0))
        if waited_s >= max(_LEAST_PATIENCE_S, _PATIENCE * known_s):
            self._failed(record)

    def _failed(self, record: Record) -> None:
        record.bad += 1
        if record.since is not None or not record.ready:
            return
        record.in_a_row += 1
        if record.in_a_row >= self._spec.outlier.consecutive_failures:
            record.in_a_row = 0
            if self._members.eject(record, Reason.CONSECUTIVE_FAILURES, self._clock()):
                self._on_change()

    def _on_answer(self, record: Record, why: str) -> None:
        check = record.check
        assert check is not None
        if bool(why) == bool(record.unhealthy):
            record.streak = 0
            record.unhealthy = why
            return
        record.streak += 1
        if record.streak < (check.unhealthy_threshold if why else check.healthy_threshold):
            return
        record.streak = 0
        record.unhealthy = why
        name, now = record.agent.name, self._clock()
        if why:
            log.warning("agent %s: unhealthy: %s", name, why)
            self._members.unhealthy[name] = record
            changed = self._members.eject(record, Reason.UNHEALTHY, now)
        else:
            log.info("agent %s: healthy again", name)
            self._members.unhealthy.pop(name, None)
            changed = self._members.return_if_over(record, now)
        if changed:
            self._on_change()

    # -- who there is, and what follows -----------------------------------------------------------------

    def follow(self, agents: Iterable[Agent], checks: Mapping[str, CheckSpec] = _NO_CHECKS) -> None:
        """From now on `agents` are the members; others are forgotten.

        One that comes back under its name and address while its ejections count is taken for the same.  `on_change` is
        not called: ask `overlay` next.

        Args:
            agents: all of them, as their sources have them, each name once.
            checks: the checks of agents that have their own, by name.

        """
        self._members.follow(agents, checks, self._clock())

    def overlay(self, agents: Iterable[Agent]) -> tuple[Agent, ...]:
        """`agents` with state and reliability as observed; those that are well are the same objects."""
        altered = self._members.altered
        if not altered:
            return tuple(agents)
        return tuple(_as_observed(agent, altered[agent.name]) if agent.name in altered else agent for agent in agents)

    def tick(self) -> None:
        """Do what is due by now; once a second is often enough."""
        for _ in self._steps():
            pass

    def _steps(self) -> Iterator[None]:
        """Do what is due by now, in steps of a few milliseconds, between which others may have their turn."""
        now, outlier, members = self._clock(), self._spec.outlier, self._members
        changed = False
        for record in list(members.out.values()):
            changed |= members.return_if_over(record, now)
        changed |= members.eject_unhealthy(now)
        members.forget(now)
        if now - self._swept_at >= outlier.interval_s:
            yield
            self._swept_at = now
            for record in sweep(members.all.values(), outlier):
                changed |= members.eject(record, Reason.SUCCESS_RATE, now)
        if now - self._reconsidered_at >= RECONSIDER_S:
            self._reconsidered_at = now
            for fresh in self._reconsider(now):
                changed |= fresh
                yield
        if changed:
            self._on_change()

    def _reconsider(self, now: float) -> Iterator[bool]:
        """Bring shares up to date, in steps; each gives whether any changed, only the last one can."""
        records = list(self._members.all.values())
        half_life_s = self._spec.reliability.half_life_s
        for at in range(0, len(records), _AT_A_TIME):
            for record in records[at : at + _AT_A_TIME]:
                record.evidence.observe(now, record.good, record.bad, record.log_latency, half_life_s)
            yield False
        self._usual = usual(records)
        yield False
        shares: list[tuple[Record, float]] = []
        for at in range(0, len(records), _AT_A_TIME):
            for record in records[at : at + _AT_A_TIME]:
                share = reconsider(record, now, self._usual, self._spec)
                if share != record.share:
                    shares.append((record, share))
            yield False
        yield self._members.share(shares)

    async def run(self) -> None:
        """Do what is due, and ask the agents that are to be asked, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._checks.run())
            while True:
                await asyncio.sleep(TICK_S)
                try:
                    for _ in self._steps():
                        await asyncio.sleep(0)
                except Exception:
                    self._defects += 1
                    log.exception("health could not be brought up to date")

    # -- what is told -------------------------------------------------------------------------------------

    @property
    def ejections(self) -> Mapping[Reason, int]:
        """How often agents were ejected, by reason."""
        return MappingProxyType(self._members.ejections)

    @property
    def ejected(self) -> int:
        """How many agents are out now."""
        return len(self._members.out)

    def why(self, name: str) -> str:
        """Why the agent `name` is ejected, or has less than its share; empty when it is neither."""
        record = self._members.altered.get(name)
        if record is None:
            return ""
        if record.ejected:
            assert record.reason is not None
            left_s = max(0.0, record.until - self._clock())
            until = f"in again in {left_s:.0f} s at the earliest" if left_s else "until its checks say otherwise"
            return f"ejected: {record.reason.value}{f': {record.unhealthy}' if record.unhealthy else ''}; {until}"
        return f"its reliability is {record.share:g}"

    def status(self) -> dict[str, object]:
        """What is not as it should be, as JSON values: how many, and the first `MAX_TOLD`; times count from now."""
        now, members = self._clock(), self._members
        reduced = {name: record.share for name, record in members.altered.items() if not record.ejected}
        return {
            "ejected_agents": len(members.out),
            "ejected": [_ejection(record, now) for _, record in _first(members.out)],
            "reduced_agents": len(reduced),
            "reduced": dict(_first(reduced)),
            "unhealthy_agents": len(members.unhealthy),
            "unhealthy": {name: record.unhealthy for name, record in _first(members.unhealthy)},
            "spared": members.spared,
            "defects": self._defects + self._checks.defects,
        }


def _first(named: Mapping[str, Value]) -> list[tuple[str, Value]]:
    return [(name, named[name]) for name in nsmallest(MAX_TOLD, named)]


def _as_observed(agent: Agent, record: Record) -> Agent:
    """`agent` as `record` has it; the same object as the last time, unless something changed."""
    state = AgentState.EJECTED if record.ejected and agent.state is AgentState.READY else agent.state
    shown = record.shown
    if shown is None or record.shown_for is not agent or (shown.state, shown.reliability) != (state, record.share):
        record.shown_for = agent
        shown = record.shown = replace(agent, state=state, reliability=record.share)
    return shown


def _ejection(record: Record, now: float) -> dict[str, object]:
    assert record.since is not None
    assert record.reason is not None
    return {
        "agent": record.agent.name,
        "reason": record.reason.value,
        "for_s": round(now - record.since, 1),
        "left_s": round(max(0.0, record.until - now), 1),
        "count": record.count,
    }
