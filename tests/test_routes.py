"""Routes are carried along as members change, and come out as if they were made anew."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.decision import Judgement, Route, Snapshot
from gateway.identity import SpiffeId
from gateway.policy import PolicySet
from gateway.policy.model import TrustPolicy
from gateway.refusal import Refusal
from gateway.routing import Agent, AgentState
from tests.policy.worlds import AGENTS, ALLOW, CODER, PLANNER, Ask, asks, documents, judged, policy, snapshot

ALLOWED = policy("a", ["*"], ALLOW)

members = st.lists(
    st.builds(
        Agent,
        name=st.sampled_from(["alpha", "beta", "gamma", "delta"]),
        host=st.just("127.0.0.1"),
        port=st.just(80),
        capabilities=st.sampled_from(
            [frozenset({"code.execute"}), frozenset({"code.execute", "code.review"}), frozenset({"web.fetch"})]
        ),
        trust=st.sampled_from([0.3, 0.6, 0.9]),
        labels=st.sampled_from([(), (("tier", "sandbox"),), (("tier", "prod"),)]),
        state=st.sampled_from([AgentState.READY, AgentState.READY, AgentState.DRAINING, AgentState.EJECTED]),
        reliability=st.sampled_from([1.0, 0.5]),
        zone=st.sampled_from(["", "here", "there"]),
    ),
    unique_by=lambda agent: agent.name,
).map(lambda agents: tuple(sorted(agents, key=lambda agent: agent.name)))


def described(judgement: Judgement) -> object:
    """Everything that a packet could notice of where it may go."""
    route = judgement.route
    if isinstance(route, Refusal):
        leaving = judgement.leaving
        return route, sorted(judgement.grants), leaving and [agent.name for agent in leaving.ring.agents]
    owners = [[agent.name for agent in route.ring.walk(b"%d" % key)] for key in range(20)]
    return owners, [agent.name for agent in route.wider.agents], {**route.grants}, {**route.members}


@settings(max_examples=60)
@given(documents, st.lists(asks, min_size=1, max_size=3), st.lists(members, min_size=2, max_size=5))
def test_routes_that_were_carried_along_are_those_made_anew(
    policies: list[TrustPolicy], packets: list[Ask], history: list[tuple[Agent, ...]]
) -> None:
    force = Snapshot("r1", PolicySet(policies), history[0], zone="here", points=32)
    for agents in history[1:]:
        for ask in packets:
            judged(ask, force)
        force = force.with_agents(agents)
        anew = Snapshot("r1", force.policies, agents, zone="here", points=32, offered=force.offered)
        for ask in packets:
            assert described(judged(ask, force)) == described(judged(ask, anew))


def test_members_that_stay_the_same_change_nothing() -> None:
    force = snapshot(ALLOWED)
    assert force.with_agents(tuple(replace(agent) for agent in force.agents)) is force


def test_what_is_under_way_counts_on_when_members_change() -> None:
    force = snapshot(ALLOWED)
    route = judged(Ask(), force).route
    assert isinstance(route, Route)
    after = judged(Ask(), force.with_agents(AGENTS[:2])).route
    assert isinstance(after, Route)
    assert after.load is route.load


def test_a_ring_is_shared_by_all_who_may_go_to_the_same_agents() -> None:
    force = snapshot(ALLOWED)
    first, second = (judged(Ask(caller=SpiffeId(f"spiffe://mesh.local/{name}")), force).route for name in "ab")
    assert isinstance(first, Route)
    assert first is second


def test_a_condition_on_agents_that_reads_the_sender_is_asked_for_each() -> None:
    own = policy("a", ["*"], {**ALLOW, "agentWhen": "principal.serviceAccount == 'coder' || agent.name == 'alpha'"})
    force = snapshot(own)
    assert len(judged(Ask(caller=CODER), force).grants) == 3
    assert list(judged(Ask(caller=PLANNER), force).grants) == ["alpha"]


def test_a_capability_whose_agents_are_gone_is_not_unknown() -> None:
    force = snapshot(ALLOWED)
    for ask, reason in ((Ask(("web.fetch",)), "no-eligible-agent"), (Ask(("web.fetsch",)), "capability-unknown")):
        refusal = judged(ask, force.with_agents(AGENTS[:1])).route
        assert isinstance(refusal, Refusal)
        assert refusal.reason.slug == reason


def test_packets_stay_in_the_zone_while_it_holds_its_share() -> None:
    def zones(*counts: int) -> list[str]:
        agents = [
            replace(AGENTS[0], name=f"{zone}-{number}", zone=zone)
            for zone, count in zip("abc", counts, strict=False)
            for number in range(count)
        ]
        force = Snapshot("r1", PolicySet([ALLOWED]), tuple(agents), zone="a")
        route = judged(Ask(), force).route
        assert isinstance(route, Route)
        assert len(route.wider.agents) == sum(counts)
        return sorted({agent.zone for agent in route.ring.agents})

    assert zones(3, 3, 3) == ["a"]
    assert zones(2, 3) == ["a"]  # 80 % of its half
    assert zones(1, 3) == ["a", "b"]
    assert zones(0, 3) == ["b"]
