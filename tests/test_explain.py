"""An explanation holds every rule and every agent against the packet, and agrees with the decision."""

from __future__ import annotations

import msgspec
from hypothesis import given

from gateway.decision import Evidence, Snapshot
from gateway.explain import Explanation, RuleConsidered, explain
from gateway.identity import Principal
from gateway.policy.model import TrustPolicy
from gateway.refusal import Refusal
from tests.policy.worlds import AGENTS, ALLOW, DENY, NOON, STRANGER, Ask, asks, documents, judged, policy, snapshot


def explained(ask: Ask, force: Snapshot) -> Explanation:
    return explain(ask.head, Principal(ask.caller), force, NOON, lambda _: 1, assume=ask.evidence)


def only_rule(ask: Ask, rule: dict[str, object], mode: str = "enforce") -> RuleConsidered:
    (considered,) = explained(ask, snapshot(policy("p", ["code.*"], rule, mode=mode))).rules
    return considered


def test_a_rule_tells_why_it_says_nothing() -> None:
    assert only_rule(Ask(("web.fetch",)), ALLOW).verdict == "the policy does not speak about this capability"
    assert only_rule(Ask(caller=STRANGER), ALLOW).verdict == "the caller is not in 'from'"
    false = only_rule(Ask(), {**ALLOW, "when": "packet.hops < 4"})
    assert (false.when, false.when_is, false.verdict) == ("packet.hops < 4", "false", "'when' is false")
    unmet = only_rule(Ask(), {**ALLOW, "require": {"signature": True, "contentDigest": True}})
    assert unmet.require == "signature by the caller, contentDigest"
    assert unmet.require_is == "no signature that it accepts"
    assert unmet.verdict == "'require' is not met: no signature that it accepts"


def test_a_rule_tells_what_it_says() -> None:
    narrow = {"to": {"minTrust": 0.5, "labels": {"tier": "prod"}}, "agentWhen": "agent.trust > 0.5"}
    assert only_rule(Ask(), ALLOW).verdict == "allows"
    assert only_rule(Ask(), DENY).verdict == "denies"
    assert only_rule(Ask(), {**ALLOW, "when": "packet.hops > 4"}).when_is == "true"
    assert (
        only_rule(Ask(), {**DENY, **narrow}).verdict
        == "shuts out agents with trust of at least 0.5, tier=prod, agent.trust > 0.5"
    )
    assert only_rule(Ask(), DENY, mode="shadow").verdict == "in shadow: denies"
    digested = Ask(evidence=Evidence(digest=True))
    assert only_rule(digested, {**ALLOW, "require": {"contentDigest": True}}).require_is == "met"


def test_a_condition_that_fails_is_told_with_its_cause() -> None:
    failing = {"when": "packet.budget.spare > 0"}
    allow, deny = only_rule(Ask(), {**ALLOW, **failing}), only_rule(Ask(), {**DENY, **failing})
    assert allow.verdict.startswith("'when' cannot be evaluated, so it does not allow: ")
    assert deny.verdict.startswith("denies, as 'when' cannot be evaluated: ")
    assert "Key not found" in allow.when_is


def test_each_agent_tells_why_it_is_not_eligible() -> None:
    rules = (
        {**ALLOW, "to": {"minTrust": 0.5}, "agentWhen": "agent.labels.tier == 'prod'"},
        {**ALLOW, "to": {"labels": {"zone": "b"}}},
    )
    told = explained(Ask(("code.execute", "code.review")), snapshot(policy("p", ["*"], *rules)))
    why = {agent.name: (agent.eligible, agent.why) for agent in told.agents}
    assert why == {
        "alpha": (False, "p/r0: 'agentWhen' is false; p/r1: is not labelled zone=b"),
        "beta": (True, "eligible, ready, trust 0.6"),
        "gamma": (False, "lacks code.review"),
    }
    shut = explained(Ask(), snapshot(policy("p", ["*"], ALLOW, {**DENY, "to": {"minTrust": 0.8}})))
    assert [agent.why for agent in shut.agents if not agent.eligible] == ["shut out by p/r1"]


def test_a_malformed_packet_is_explained_by_its_mistake() -> None:
    told = explained(Ask(("no good",)), snapshot())
    assert (told.allow, told.status, told.reason) == (False, 400, "malformed-packet")
    assert told.rules == ()


@given(documents, asks)
def test_an_explanation_agrees_with_the_decision(policies: list[TrustPolicy], ask: Ask) -> None:
    force = snapshot(*policies)
    told, judgement = explained(ask, force), judged(ask, force)
    assert told.shadow == judgement.shadow
    assert len(told.rules) == len(ask.capabilities) * len(force.policies.rules)
    if isinstance(judgement.route, Refusal):
        assert (told.allow, told.reason) == (False, judgement.route.reason.slug)
        assert not any(agent.eligible for agent in told.agents)
    else:
        eligible = [agent.name for agent in told.agents if agent.eligible]
        assert told.allow
        assert eligible == [agent.name for agent in judgement.route.ring.agents]
        assert told.agent in eligible
    assert len(told.agents) == len(AGENTS)
    assert msgspec.json.decode(msgspec.json.encode(told), type=Explanation) == told
