"""Whatever happens: never all, never many, and it ends."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.membership.health import CheckSpec, HealthSpec
from gateway.membership.health.reliability import settle
from gateway.routing import Agent, AgentState
from tests.membership.health.fleet import Fleet

CAPABILITIES = ["code", "lint", "review"]
NAMES = [f"a{number}" for number in range(9)]
names = st.sampled_from(NAMES)
agents = st.builds(
    Agent,
    name=names,
    host=st.just("10.0.0.1"),
    port=st.sampled_from([80, 81]),
    capabilities=st.frozensets(st.sampled_from(CAPABILITIES), min_size=1),
    state=st.sampled_from([AgentState.READY] * 4 + [AgentState.DRAINING]),
)
fleets = st.lists(agents, min_size=1, max_size=9, unique_by=lambda each: each.name)


class HealthOfAFleet(RuleBasedStateMachine):
    @initialize(members=fleets, checked=st.booleans())
    def begin(self, members: list[Agent], checked: bool) -> None:
        self.fleet = Fleet(members, HealthSpec(check=CheckSpec() if checked else None))

    @rule(members=fleets)
    def members_change(self, members: list[Agent]) -> None:
        self.fleet.follow(members)

    @rule(name=names)
    def one_leaves(self, name: str) -> None:
        left = [each for each in self.fleet.agents if each.name != name]
        self.fleet.follow(left)

    @rule(name=names, times=st.sampled_from([1, 5, 60]))
    def fail(self, name: str, times: int) -> None:
        self.fleet.fail(name, times)

    @rule(name=names, times=st.sampled_from([1, 60]), latency_s=st.sampled_from([0.0, 0.01, 1.0, 600.0]))
    def succeed(self, name: str, times: int, latency_s: float) -> None:
        self.fleet.ok(name, times, latency_s)

    @rule(name=names, waited_s=st.sampled_from([0.001, 3.0]))
    def time_out(self, name: str, waited_s: float) -> None:
        self.fleet.health.unanswered(name, waited_s)

    @rule(name=names, why=st.sampled_from(["", "no"]), times=st.integers(1, 3))
    def a_check_answers(self, name: str, why: str, times: int) -> None:
        self.fleet.checked(name, *[why] * times)

    @rule(seconds=st.sampled_from([1, 5, 30]))
    def time_passes(self, seconds: int) -> None:
        self.fleet.pass_s(seconds)

    @invariant()
    def never_many_and_never_all_are_out(self) -> None:
        ready = Counter(
            capability
            for each in self.fleet.agents
            if each.state is AgentState.READY
            for capability in each.capabilities
        )
        seen = self.fleet.health.overlay(self.fleet.agents)
        out = Counter(
            capability for each in seen if each.state is AgentState.EJECTED for capability in each.capabilities
        )
        for capability, count in out.items():
            assert count < ready[capability]
            assert count <= max(1, ready[capability] // 3)

    @invariant()
    def only_state_and_share_change_and_within_bounds(self) -> None:
        for seen, known in zip(self.fleet.health.overlay(self.fleet.agents), self.fleet.agents, strict=True):
            assert 0.1 <= seen.reliability <= 1
            assert seen.reliability * 8 == int(seen.reliability * 8)
            assert (seen.name, seen.host, seen.port) == (known.name, known.host, known.port)
            assert seen.capabilities is known.capabilities
            assert seen.state in (known.state, AgentState.EJECTED)

    def teardown(self) -> None:
        """Whatever was, with time and good answers it is over."""
        for name in NAMES:
            self.a_check_answers(name, "", 2)
        for _ in range(6):
            self.fleet.pass_s(150)
        assert self.fleet.out == []
        assert all(
            seen is known
            for seen, known in zip(self.fleet.health.overlay(self.fleet.agents), self.fleet.agents, strict=True)
        )


TestHealthOfAFleet = HealthOfAFleet.TestCase
TestHealthOfAFleet.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


packets = st.tuples(names, st.integers(1, 40), st.floats(0.1, 0.19))


@given(fleets, st.lists(st.one_of(packets, st.sampled_from([1, 5, 10])), max_size=60), st.data())
def test_a_healthy_fleet_is_never_touched(members: list[Agent], steps: list[object], data: st.DataObject) -> None:
    fleet = Fleet(members)
    for step in steps:
        if isinstance(step, tuple):
            fleet.ok(*step)
        else:
            assert isinstance(step, int)
            fleet.pass_s(step)
            kept = data.draw(st.integers(0, len(members)))
            fleet.follow(members[kept:] + members[:kept])
    assert fleet.changes == 0
    assert all(seen is known for seen, known in zip(fleet.health.overlay(members), members, strict=True))


@given(st.floats(0, 1), st.integers(1, 8))
def test_a_share_that_has_settled_stays(value: float, eighths: int) -> None:
    settled = settle(value, eighths / 8)
    assert 1 / 8 <= settled <= 1
    assert settle(value, settled) == settled
    assert abs(settled - max(value, 1 / 8)) < 3 / 32
