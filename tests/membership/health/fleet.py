"""A fleet of agents as health sees it, at a time that tests set."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from random import Random

from gateway.membership.health import CheckSpec, Health, HealthSpec
from gateway.routing import Agent, AgentState


def no_tls(agent: Agent) -> ssl.SSLContext:
    raise AssertionError(f"nobody should reach {agent.name} over TLS")


def agent(name: str, *capabilities: str, state: AgentState = AgentState.READY, port: int = 8080) -> Agent:
    return Agent(name, "10.0.0.1", port, frozenset(capabilities or ("code.execute",)), state=state)


class Fleet:
    """Agents, their health, and a clock that goes only when told."""

    def __init__(self, agents: Iterable[Agent], spec: HealthSpec | None = None) -> None:
        self.now = 1000.0
        self.changes = 0
        self.health = Health(
            spec or HealthSpec(), on_change=self._changed, clock=lambda: self.now, rng=Random(1), context=no_tls
        )
        self.follow(agents)

    def _changed(self) -> None:
        self.changes += 1

    def follow(self, agents: Iterable[Agent], checks: Mapping[str, CheckSpec] | None = None) -> None:
        self.agents = tuple(agents)
        self.health.follow(self.agents, checks or {})

    def pass_s(self, seconds: float) -> None:
        """Let time go on, with a tick each second."""
        for _ in range(int(seconds)):
            self.now += 1
            self.health.tick()

    def ok(self, name: str, times: int = 1, latency_s: float = 0.1) -> None:
        for _ in range(times):
            self.health.observed(name, ok=True, latency_s=latency_s)

    def fail(self, name: str, times: int = 1) -> None:
        for _ in range(times):
            self.health.observed(name, ok=False, latency_s=0.0)

    def checked(self, name: str, *answers: str) -> None:
        """Have checks answer why the agent is not well, or nothing."""
        record = self.health._members.all.get(name)
        for why in answers:
            if record is not None and record.check is not None:
                self.health._on_answer(record, why)

    def as_seen(self) -> dict[str, Agent]:
        return {each.name: each for each in self.health.overlay(self.agents)}

    @property
    def out(self) -> list[str]:
        """Who is ejected now."""
        return [name for name, each in self.as_seen().items() if each.state is AgentState.EJECTED]

    def share(self, name: str) -> float:
        return self.as_seen()[name].reliability
