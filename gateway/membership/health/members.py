"""Who there is, and who of them is out.  Pure: it is told the time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gateway.membership.health.limit import EjectionLimit
from gateway.membership.health.outliers import ejection_s
from gateway.membership.health.record import Reason, Record
from gateway.membership.health.reliability import STEP
from gateway.membership.health.spec import CheckSpec, HealthSpec
from gateway.routing import Agent

log = logging.getLogger(__name__)

MAX_GONE: Final = 10_000
"""Agents that went away with ejections that count; beyond it the earliest gone are forgotten."""


class Members:
    """The records of all members; ejects them, never too many, and lets them in again."""

    def __init__(self, spec: HealthSpec, ask: Callable[[Record], None]) -> None:
        """Nobody is there yet; `ask` is told whose check changed."""
        self._spec = spec
        self._ask = ask
        self._limit = EjectionLimit(spec.outlier.max_ejected_share)
        self._gone: dict[tuple[str, str, int], tuple[Record, float]] = {}
        """Who left with ejections that count, and when."""
        self._begun = False
        self.all: dict[str, Record] = {}
        self.out: dict[str, Record] = {}
        """Those ejected."""
        self.altered: dict[str, Record] = {}
        """Those ejected, and those whose share is not whole."""
        self.unhealthy: dict[str, Record] = {}
        """By their checks."""
        self._offenders: dict[str, Record] = {}
        """Those with ejections that count."""
        self.ejections = dict.fromkeys(Reason, 0)
        self.spared = 0
        """Ejections that were due and did not happen, since too few others were in."""

    # -- out and in ---------------------------------------------------------------------------------------

    def eject(self, record: Record, reason: Reason, now: float) -> bool:
        """Eject `record` if enough others are in; gives whether it happened."""
        if record.ejected or not record.ready:
            return False
        name = record.agent.name
        if not self._limit.allows(record.agent.capabilities):
            self.spared += 1
            return False
        record.since = record.until = now
        record.starts_at = None
        record.reason = reason
        if reason is not Reason.UNHEALTHY:
            record.count += 1
            record.until = now + ejection_s(self._spec.outlier, record.count)
            self._offenders[name] = record
        log.warning("agent %s: ejected: %s", name, reason.value)
        self.ejections[reason] += 1
        self._limit.eject(record.agent.capabilities)
        self.out[name] = self.altered[name] = record
        return True

    def eject_unhealthy(self, now: float) -> bool:
        """Eject whom its checks speak against and who is still in, if there is room now; gives whether there was."""
        changed = False
        for record in self.unhealthy.values():
            if not record.ejected and self._limit.allows(record.agent.capabilities):
                changed |= self.eject(record, Reason.UNHEALTHY, now)
        return changed

    def return_if_over(self, record: Record, now: float) -> bool:
        """Let `record` in if nothing speaks against it any more; gives whether it happened."""
        if not record.ejected or record.unhealthy or now < record.until:
            return False
        self._return(record, now)
        return True

    def _return(self, record: Record, now: float) -> None:
        if record.ready:
            self._limit.readmit(record.agent.capabilities)
        record.since = None
        record.reason = None
        record.off_the_count_at = now + self._spec.outlier.base_ejection_s
        record.start_anew(now)
        self._start_slowly(record, now)
        del self.out[record.agent.name]
        log.info("agent %s: in again", record.agent.name)

    def _start_slowly(self, record: Record, now: float) -> None:
        record.starts_at = now
        record.share = STEP
        self.altered[record.agent.name] = record

    def share(self, shares: Iterable[tuple[Record, float]]) -> bool:
        """Give records their new shares, save for those that are out or gone by now; gives whether there were any."""
        changed = False
        for record, share in shares:
            name = record.agent.name
            if record.ejected or self.all.get(name) is not record:
                continue
            changed = True
            record.share = share
            if share == 1:
                self.altered.pop(name, None)
            else:
                self.altered[name] = record
        return changed

    def forget(self, now: float) -> None:
        """Take ejections off the count, and forget who left long ago."""
        for name, record in list(self._offenders.items()):
            if not record.ejected and now >= record.off_the_count_at:
                record.count -= 1
                record.off_the_count_at = now + self._spec.outlier.base_ejection_s
                if not record.count:
                    del self._offenders[name]
        while self._gone:
            first = next(iter(self._gone))
            if now - self._gone[first][1] < self._spec.outlier.max_ejection_s:
                break
            del self._gone[first]

    # -- who there is -------------------------------------------------------------------------------------

    def follow(self, agents: Iterable[Agent], checks: Mapping[str, CheckSpec], now: float) -> None:
        """From now on `agents`, each name once, are the members; `checks` are those that some have of their own."""
        before, after = self.all, dict[str, Record]()
        default = self._spec.check
        stayed = 0
        for agent in agents:
            name = agent.name
            record = before.get(name)
            if record is not None and record.agent is not agent:
                record = self._changed(record, agent)
            if record is None:
                record = self._join(agent, now)
            else:
                stayed += 1
            after[name] = record
            check = checks.get(name, default)
            if record.check is not check or (check is None and record.unhealthy):
                self._check_by(record, check)
        if stayed < len(before):
            for name, record in before.items():
                if after.get(name) is not record:
                    self._leave(record, now)
        self.all = after
        self._begun = True
        self._let_in_whom_is_missed(now)

    def _changed(self, record: Record, agent: Agent) -> Record | None:
        """`record` with the new `agent`, ``None`` when it is another one by the same name."""
        old = record.agent
        if (old.host, old.port) != (agent.host, agent.port):
            return None
        if record.ready:
            self._limit.leave(old.capabilities, out=record.ejected)
        record.agent = agent
        if record.ready:
            self._limit.join(agent.capabilities, out=record.ejected)
        return record

    def _join(self, agent: Agent, now: float) -> Record:
        record, _ = self._gone.pop((agent.name, agent.host, agent.port), (None, now))
        if record is None:
            record = Record(agent, None, now)
            if self._begun and self._spec.slow_start.new_members:
                record.starts_at, record.share = now, STEP
        record.agent = agent
        if record.ready:
            self._limit.join(agent.capabilities, out=record.ejected)
        for noted, belongs in (
            (self.out, record.ejected),
            (self.altered, record.ejected or record.share != 1),
            (self._offenders, record.count > 0),
            (self.unhealthy, bool(record.unhealthy)),
        ):
            if belongs:
                noted[agent.name] = record
        return record

    def _leave(self, record: Record, now: float) -> None:
        agent = record.agent
        if record.ready:
            self._limit.leave(agent.capabilities, out=record.ejected)
        for noted in (self.out, self.altered, self._offenders, self.unhealthy):
            if noted.get(agent.name) is record:  # not another one by the same name
                del noted[agent.name]
        record.check = None
        if record.ejected or record.count:
            self._gone[agent.name, agent.host, agent.port] = record, now
            if len(self._gone) > MAX_GONE:
                del self._gone[next(iter(self._gone))]

    def _check_by(self, record: Record, check: CheckSpec | None) -> None:
        record.check = check
        record.streak = 0
        if check is None:
            # Nobody will ever hear that it is healthy: it comes back as soon as nothing else speaks against it.
            record.unhealthy = ""
            self.unhealthy.pop(record.agent.name, None)
        else:
            self._ask(record)

    def _let_in_whom_is_missed(self, now: float) -> None:
        """Where members left, and too many of the rest are out, those soonest due come back at once."""
        for capability in self._limit.exceeded():
            out = [record for record in self.out.values() if record.ready and capability in record.agent.capabilities]
            out.sort(key=lambda record: (bool(record.unhealthy), record.until, record.agent.name))
            for record in out:
                if capability not in self._limit.exceeded():
                    break
                self._return(record, now)
