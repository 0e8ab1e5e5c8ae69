"""What is known of one agent's health."""

from __future__ import annotations

from enum import Enum

from gateway.membership.health.reliability import Evidence
from gateway.membership.health.spec import CheckSpec
from gateway.routing import Agent, AgentState


class Reason(Enum):
    """Why an agent is ejected."""

    CONSECUTIVE_FAILURES = "consecutive-failures"
    SUCCESS_RATE = "success-rate"
    UNHEALTHY = "unhealthy"
    """By its checks."""


class Record:
    """One agent, as `Health` follows it.

    The counters only ever grow; whoever looks at an interval remembers what they were at its beginning.
    """

    __slots__ = (
        "agent",
        "bad",
        "check",
        "count",
        "evidence",
        "good",
        "in_a_row",
        "log_latency",
        "off_the_count_at",
        "queued",
        "reason",
        "reliability",
        "share",
        "shown",
        "shown_for",
        "since",
        "starts_at",
        "streak",
        "swept_bad",
        "swept_good",
        "unhealthy",
        "until",
    )

    def __init__(self, agent: Agent, check: CheckSpec | None, now: float) -> None:
        self.agent = agent
        self.check = check
        self.good = 0
        self.bad = 0
        self.in_a_row = 0
        """Failures since the last success."""
        self.log_latency = 0.0
        """The sum of the logarithms of the latencies of all that was good."""
        self.swept_good = 0
        self.swept_bad = 0
        self.evidence = Evidence(now)
        self.since: float | None = None
        """When it was ejected; ``None`` while it is in."""
        self.until = 0.0
        self.reason: Reason | None = None
        self.count = 0
        """Ejections that still count."""
        self.off_the_count_at = 0.0
        """When one of them no longer does."""
        self.starts_at: float | None = None
        """When its slow start began; ``None`` when it never had one."""
        self.reliability = 1.0
        self.share = 1.0
        """`reliability`, and how far the slow start has come."""
        self.shown: Agent | None = None
        """What was last told of it, made of `shown_for`."""
        self.shown_for: Agent | None = None
        self.unhealthy = ""
        """Why, by its checks; empty when they say nothing against it."""
        self.streak = 0
        """Checks in a row that contradict `unhealthy`."""
        self.queued = False
        """Whether it stands in the queue of checks."""

    @property
    def ejected(self) -> bool:
        """Whether it is out, as far as health is concerned."""
        return self.since is not None

    @property
    def ready(self) -> bool:
        """Whether its source would have it take packets."""
        return self.agent.state is AgentState.READY

    def start_anew(self, now: float) -> None:
        """Forget what was observed: what it did before it was ejected says nothing about now."""
        self.in_a_row = 0
        self.swept_good, self.swept_bad = self.good, self.bad
        self.evidence.begin(now, self.good, self.bad, self.log_latency)
        self.reliability = 1.0
