"""Judging open streams again, and what a snapshot remembers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway import judgement as module
from gateway.decision import EMPTY, Forward, Refuse, Route, decide
from gateway.identity import Principal, SpiffeId
from gateway.messages import RequestHead
from gateway.packet.digest import content_digest
from gateway.refusal import Refusal
from gateway.routing import AgentState
from tests.policy.worlds import AGENTS, ALLOW, DENY, NOON, PLANNER, Ask, judged, policy, snapshot

ALLOWED = policy("a", ["*"], ALLOW)


def entropy(_: int) -> int:
    return 1


def test_a_stream_may_go_on_where_the_packet_could_still_go() -> None:
    ask = Ask()
    assert "beta" in judged(ask, snapshot(ALLOWED)).grants
    shut = policy("d", ["*"], {**DENY, "to": {"labels": {"tier": "prod"}}})
    assert "beta" not in judged(ask, snapshot(ALLOWED, shut)).grants
    assert judged(ask, snapshot(policy("d", ["*"], DENY))).grants == {}


def test_a_stream_outlives_the_readiness_of_its_agent() -> None:
    draining = [replace(agent, state=AgentState.DRAINING) for agent in AGENTS]
    judgement = judged(Ask(), snapshot(ALLOWED, agents=draining))
    assert isinstance(judgement.route, Refusal)
    assert judgement.route.reason.slug == "no-eligible-agent"
    assert "alpha" in judgement.grants


def test_where_all_agents_drain_only_packets_of_conversations_may_go_on() -> None:
    draining = [replace(agent, state=AgentState.DRAINING) for agent in AGENTS]
    force = snapshot(ALLOWED, agents=draining)
    ejected = snapshot(ALLOWED, agents=[replace(agent, state=AgentState.EJECTED) for agent in AGENTS])
    fields = [(b"flight-capability", b"code.execute"), (b"flight-conversation", b'"c"')]
    of_conversation, alone = (RequestHead(b"POST", b"https", b"g", b"/", some) for some in (fields, fields[:1]))
    verdict = decide(of_conversation, Principal(PLANNER), force, NOON, entropy)
    assert isinstance(verdict, Forward)
    assert verdict.route.full is not None
    for head, snap in ((alone, force), (of_conversation, ejected)):
        refused = decide(head, Principal(PLANNER), snap, NOON, entropy)
        assert isinstance(refused, Refuse)
        assert refused.refusal == verdict.route.full


def test_conditions_that_depend_on_time_are_asked_again() -> None:
    force = snapshot(policy("a", ["*"], {**ALLOW, "when": "now < timestamp('2026-01-01T13:00:00Z')"}))
    assert isinstance(judged(Ask(), force, NOON).route, Route)
    assert isinstance(judged(Ask(), force, NOON + 3600).route, Refusal)


def test_the_same_agents_share_one_ring() -> None:
    force = snapshot(ALLOWED)
    routes = [judged(Ask(caller=SpiffeId(f"spiffe://mesh.local/{name}")), force).route for name in "ab"]
    assert all(isinstance(route, Route) for route in routes)
    assert len({id(route.ring) for route in routes if isinstance(route, Route)}) == 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CASES", 8)
    monkeypatch.setattr(module, "_MAX_JUDGEMENTS", 2)
    rules = [{**ALLOW, "when": f"packet.hops == {hops}"} for hops in range(8)]
    force = snapshot(policy("a", ["*"], *rules))
    for number in range(30):
        ask = Ask(caller=SpiffeId(f"spiffe://mesh.local/{number % 10}"), hops=number % 8)
        assert isinstance(judged(ask, force).route, Route)
    assert len(force.cases) <= 8
    assert all(len(case.judgements) <= 2 for case in force.cases.values())


def test_a_verdict_carries_what_it_takes_to_judge_again() -> None:
    head = RequestHead(
        b"POST",
        b"https",
        b"g",
        b"/",
        [(b"flight-capability", b"code.execute"), (b"content-digest", content_digest(b""))],
    )
    digested = policy("a", ["*"], {**ALLOW, "require": {"contentDigest": True}, "limits": {"rate": "5/m"}})
    verdict = decide(head, Principal(PLANNER), snapshot(digested), NOON, entropy)
    assert isinstance(verdict, Forward)
    assert verdict.evidence.digest
    assert [limit.rule for limit in verdict.route.grants[verdict.agent.name].limits] == ["r0"]
    again = module.judge(verdict.packet, head, Principal(PLANNER), verdict.evidence, snapshot(digested), NOON)
    assert verdict.agent.name in again.grants


def test_nothing_in_force_lets_nobody_through() -> None:
    verdict = decide(Ask().head, Principal(PLANNER), EMPTY, NOON, entropy)
    assert isinstance(verdict, Refuse)
    assert verdict.refusal.reason.slug == "no-policy-allows"
