"""What a set of policies says of a packet, and how its sender is told."""

from __future__ import annotations

import pytest

from gateway.decision import Evidence, Route
from gateway.policy.model import Per, TrustPolicy
from gateway.policy.rate import Rate
from gateway.refusal import Refusal
from tests.policy.worlds import ALLOW, CODER, DENY, MESH, PLANNER, STRANGER, Ask, judged, policy, snapshot

FAILS = "packet.budget.spare > 0"
"""No packet here has such a budget."""


def agents(ask: Ask, *policies: TrustPolicy) -> list[str]:
    route = judged(ask, snapshot(*policies)).route
    assert isinstance(route, Route), route
    return [agent.name for agent in route.ring.agents]


def refusal(ask: Ask, *policies: TrustPolicy) -> Refusal:
    route = judged(ask, snapshot(*policies)).route
    assert isinstance(route, Refusal), route
    return route


def test_silence_is_a_refusal() -> None:
    told = refusal(Ask(("web.fetch",)), policy("p", ["code.*"], ALLOW))
    assert told.reason.slug == "no-policy-allows"
    assert "check the spelling" in told.detail


def test_every_capability_needs_an_allow() -> None:
    told = refusal(Ask(("code.execute", "admin.root")), policy("p", ["code.*"], ALLOW))
    assert told.reason.slug == "no-policy-allows"
    assert "admin.root" in told.detail


def test_a_deny_wins_in_whatever_policy_it_stands() -> None:
    told = refusal(Ask(), policy("a", ["*"], ALLOW), policy("z", ["code.execute"], DENY))
    assert (told.reason.slug, told.policy, told.rule) == ("denied-by-policy", "z", "r0")


def test_nobody_learns_of_capabilities_that_they_may_not_ask_for() -> None:
    assert refusal(Ask(("code.fly",), STRANGER), policy("p", ["*"], ALLOW)).reason.slug == "no-policy-allows"
    assert refusal(Ask(("code.fly",)), policy("p", ["*"], ALLOW)).reason.slug == "capability-unknown"


def test_to_and_agent_when_narrow_the_agents_of_an_allow() -> None:
    assert agents(Ask(), policy("p", ["*"], ALLOW)) == ["alpha", "beta", "gamma"]
    assert agents(Ask(), policy("p", ["*"], {**ALLOW, "to": {"minTrust": 0.5}})) == ["alpha", "beta"]
    assert agents(Ask(), policy("p", ["*"], {**ALLOW, "to": {"labels": {"tier": "prod"}}})) == ["beta"]
    assert agents(Ask(), policy("p", ["*"], {**ALLOW, "agentWhen": "agent.name != 'beta'"})) == ["alpha", "gamma"]


def test_a_deny_that_means_some_agents_shuts_these_out_alone() -> None:
    allow = policy("p", ["*"], ALLOW)
    assert agents(Ask(), allow, policy("d", ["*"], {**DENY, "to": {"labels": {"tier": "prod"}}})) == ["alpha", "gamma"]
    assert agents(Ask(), allow, policy("d", ["*"], {**DENY, "agentWhen": "agent.trust < 0.5"})) == ["alpha", "beta"]


def test_no_agent_within_the_narrowing_is_503() -> None:
    told = refusal(Ask(), policy("p", ["*"], {**ALLOW, "to": {"minTrust": 1.0}}))
    assert told.reason.slug == "no-eligible-agent"
    assert told.retry_after_s > 0


def test_when_decides_packet_by_packet() -> None:
    force = snapshot(policy("p", ["*"], {**ALLOW, "when": "packet.hops < 4 && request.method in ['POST']"}))
    routes = [judged(ask, force).route for ask in (Ask(hops=3), Ask(hops=4), Ask(hops=3, method="GET"), Ask(hops=2))]
    assert [isinstance(route, Route) for route in routes] == [True, False, False, True]


def test_an_allow_whose_condition_fails_does_not_allow_and_is_named() -> None:
    told = refusal(Ask(), policy("p", ["*"], {**ALLOW, "when": FAILS}))
    assert (told.reason.slug, told.policy, told.rule) == ("no-policy-allows", "p", "r0")
    assert "p/r0 could not be evaluated" in told.detail
    assert "budget" not in told.detail, "the text of a policy is nobody's business"
    assert agents(Ask(), policy("p", ["*"], {**ALLOW, "when": FAILS}, ALLOW))


def test_a_deny_whose_condition_fails_denies() -> None:
    told = refusal(Ask(), policy("p", ["*"], ALLOW, {**DENY, "when": FAILS}))
    assert (told.reason.slug, told.rule) == ("denied-by-policy", "r1")
    assert "could not be evaluated" in told.detail


def test_a_deny_of_agents_whose_condition_fails_shuts_them_out() -> None:
    zoned = "agent.labels.zone == 'b'"  # only beta has a zone
    assert agents(Ask(), policy("p", ["*"], ALLOW, {**DENY, "to": {"minTrust": 0.5}, "when": FAILS})) == ["gamma"]
    assert agents(Ask(), policy("p", ["*"], ALLOW, {**DENY, "agentWhen": zoned})) == ["beta"]
    assert refusal(Ask(), policy("p", ["*"], {**ALLOW, "agentWhen": zoned})).reason.slug == "no-eligible-agent"


SIGNED = {**ALLOW, "require": {"signature": True}}
CARRIED = {**ALLOW, "require": {"signature": True, "signers": [CODER]}}
DIGESTED = {**ALLOW, "require": {"contentDigest": True}}
BOTH = {**ALLOW, "require": {"signature": True, "contentDigest": True}}
COVERED = frozenset({b"content-digest"})


@pytest.mark.parametrize(
    ("rule", "evidence", "missing"),
    [
        (SIGNED, Evidence(PLANNER), ""),
        (SIGNED, Evidence(), "a signature"),
        (SIGNED, Evidence(CODER), "a signature"),
        (CARRIED, Evidence(CODER), ""),
        (CARRIED, Evidence(PLANNER), "a signature"),
        (DIGESTED, Evidence(digest=True), ""),
        (DIGESTED, Evidence(PLANNER), "a content-digest"),
        (BOTH, Evidence(PLANNER, COVERED, digest=True), ""),
        (BOTH, Evidence(PLANNER, frozenset(), digest=True), "a content-digest, covered by the signature"),
        (BOTH, Evidence(digest=True), "a signature"),
    ],
)
def test_an_allow_holds_only_where_what_it_requires_is_proven(
    rule: dict[str, object], evidence: Evidence, missing: str
) -> None:
    ask = Ask(evidence=evidence)
    if not missing:
        assert agents(ask, policy("p", ["*"], rule))
        return
    told = refusal(ask, policy("p", ["*"], rule))
    assert (told.reason.status, told.reason.slug) == (401, "signature-invalid")
    assert (told.policy, told.rule) == ("p", "r0")
    assert told.detail.startswith(f"p/r0 allows code.execute only with {missing}")
    if evidence.signer in (None, PLANNER):
        assert agents(ask, policy("p", ["*"], rule), policy("q", ["*"], ALLOW)), "another rule may still allow"


def test_what_another_has_signed_is_allowed_only_by_a_rule_that_names_signers() -> None:
    carrying = Ask(evidence=Evidence(CODER))
    told = refusal(carrying, policy("p", ["*"], ALLOW))
    assert told.reason.slug == "signature-invalid"
    assert "the caller's own signature" in told.detail
    assert agents(carrying, policy("p", ["*"], ALLOW, CARRIED))


def test_a_requirement_is_not_asked_of_packets_that_the_condition_leaves_out() -> None:
    told = refusal(Ask(), policy("p", ["*"], {**SIGNED, "when": "packet.task == 't'"}))
    assert told.reason.slug == "no-policy-allows"


def test_an_unmet_requirement_and_a_failed_condition_are_both_told() -> None:
    told = refusal(Ask(), policy("p", ["*"], SIGNED, {**ALLOW, "when": FAILS}))
    assert told.reason.slug == "signature-invalid"
    assert "p/r1 could not be evaluated" in told.detail


def test_the_terms_of_each_rule_that_lets_a_packet_through_come_with_the_agent() -> None:
    limited = {**ALLOW, "limits": {"rate": "50/s", "per": "conversation"}, "grant": {"budget": {"tokens": 5}}}
    judgement = judged(
        Ask(("code.execute", "code.review")),
        snapshot(policy("a", ["code.execute"], limited), policy("b", ["code.review"], {**limited, "from": [MESH]})),
    )
    granted = judgement.grants["alpha"]
    assert (granted.policy, granted.rule) == ("a", "r0")
    assert [(limit.policy, limit.rule, limit.rate, limit.per) for limit in granted.limits] == [
        ("a", "r0", Rate(50, 1.0), Per.CONVERSATION),
        ("b", "r0", Rate(50, 1.0), Per.CONVERSATION),
    ]
    assert [grant.budget for grant in granted.grants] == [{"tokens": 5}, {"tokens": 5}]
    assert granted.decision_value == b'allow;policy="a";revision="r1"'
