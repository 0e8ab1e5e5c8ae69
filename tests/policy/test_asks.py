"""Rules that let a packet through once somebody has approved it: deny before ask before allow."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.decision import Evidence, Route, Shadow
from gateway.policy import Ask as Asked
from gateway.policy.model import TrustPolicy
from gateway.refusal import Refusal
from tests.policy.worlds import ALLOW, CODER, DENY, MESH, PLANNER, Ask, judged, policy, snapshot

ASK = {"effect": "ask", "from": [MESH]}
FAILS = "packet.budget.spare > 0"
"""No packet here has such a budget."""
ALLOWED = policy("a", ["*"], ALLOW)


def asked(ask: Ask, *policies: TrustPolicy) -> dict[str, list[str]]:
    """By agent, the rules that have to be approved."""
    judgement = judged(ask, snapshot(*policies))
    assert isinstance(judgement.route, Route), judgement.route
    grants = judgement.route.grants
    assert all(granted.staged == bool(granted.approvals) for granted in grants.values())
    return {name: [each.name for each in granted.approvals] for name, granted in grants.items()}


def refusal(ask: Ask, *policies: TrustPolicy) -> tuple[str, str]:
    route = judged(ask, snapshot(*policies)).route
    assert isinstance(route, Refusal), route
    return route.reason.slug, f"{route.policy}/{route.rule}"


def test_an_ask_allows_what_nothing_else_does() -> None:
    assert asked(Ask(("web.fetch",)), policy("q", ["web.*"], ASK)) == {"beta": ["q/r0"], "gamma": ["q/r0"]}


@pytest.mark.parametrize("names", [("a", "q", "z"), ("z", "q", "a"), ("q", "z", "a")])
def test_the_careful_answer_wins_in_whatever_file_it_stands(names: tuple[str, str, str]) -> None:
    allow, ask, deny = (policy(name, ["*"], rule) for name, rule in zip(names, (ALLOW, ASK, DENY), strict=True))
    assert set(map(tuple, asked(Ask(), allow, ask).values())) == {(f"{names[1]}/r0",)}
    assert refusal(Ask(), allow, ask, deny) == ("denied-by-policy", f"{names[2]}/r0")


def test_each_ask_that_matches_is_asked_and_no_other() -> None:
    first = policy("p", ["code.execute"], ASK, {**ASK, "from": [CODER]}, {**ASK, "when": "packet.hops > 99"})
    second = policy("q", ["code.review"], ASK)
    found = asked(Ask(("code.execute", "code.review"), caller=PLANNER), ALLOWED, first, second)
    assert found == {"alpha": ["p/r0", "q/r0"], "beta": ["p/r0", "q/r0"]}


def test_an_ask_may_mean_some_agents_only() -> None:
    narrow = policy("q", ["*"], {**ASK, "to": {"labels": {"tier": "prod"}}})
    assert asked(Ask(), ALLOWED, narrow) == {"alpha": [], "beta": ["q/r0"], "gamma": []}
    assert asked(Ask(), narrow) == {"beta": ["q/r0"]}


def test_an_ask_that_cannot_be_evaluated_denies() -> None:
    assert refusal(Ask(), ALLOWED, policy("q", ["*"], {**ASK, "when": FAILS})) == ("denied-by-policy", "q/r0")
    assert asked(Ask(), ALLOWED, policy("q", ["*"], {**ASK, "agentWhen": "agent.labels.zone == 'a'"})) == {
        "beta": ["q/r0"]
    }, "of the others it cannot be told whether they have to be asked about"
    narrow = {**ASK, "when": FAILS, "to": {"labels": {"tier": "prod"}}}
    assert asked(Ask(), ALLOWED, policy("q", ["*"], narrow)) == {"alpha": [], "gamma": []}


def test_nobody_gets_around_an_ask_by_leaving_a_signature_out() -> None:
    signed = policy("q", ["*"], {**ASK, "require": {"signature": True}})
    assert refusal(Ask(), ALLOWED, signed) == ("signature-invalid", "q/r0")
    proven = Ask(evidence=Evidence(PLANNER))
    assert set(map(tuple, asked(proven, ALLOWED, signed).values())) == {("q/r0",)}
    other = policy("r", ["*"], ASK)
    assert refusal(Ask(), ALLOWED, signed, other) == ("signature-invalid", "q/r0")


def test_what_is_asked_says_who_may_answer_and_for_how_long() -> None:
    people = "spiffe://mesh.local/ns/people/sa/*"
    terms = {"timeout": "90s", "approvers": [people, "token"], "reason": "costs money"}
    judgement = judged(Ask(), snapshot(policy("q", ["*"], {**ASK, "approval": terms}, ASK)))
    first, second = judgement.grants["alpha"].approvals
    assert (first.timeout_s, first.reason) == (90.0, "costs money")
    ann, bot = "spiffe://mesh.local/ns/people/sa/ann", "spiffe://mesh.local/ns/agents/sa/bot"
    assert [first.takes(who) for who in (ann, bot, "token from ::1", "session from ::1", "webhook")] == [
        True,
        False,
        True,
        True,
        False,
    ]
    assert second == Asked("q", "r1", 60.0)
    assert all(second.takes(who) for who in (ann, bot, "token from ::1", "webhook"))


@pytest.mark.parametrize(
    "rule",
    [
        {**ALLOW, "approval": {}},
        {**DENY, "approval": {}},
        {**ASK, "approval": {"approvers": []}},
        {**ASK, "approval": {"approvers": ["ann"]}},
        {**ASK, "approval": {"timeout": "2h"}},
        {**ASK, "approval": {"timeout": "0s"}},
    ],
)
def test_terms_that_cannot_be_meant_are_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        policy("q", ["*"], rule)


def test_an_ask_in_shadow_lets_through_and_is_told() -> None:
    judgement = judged(Ask(), snapshot(ALLOWED, policy("s", ["*"], ASK, mode="shadow")))
    assert not any(granted.approvals for granted in judgement.grants.values())
    everybody = ("alpha", "beta", "gamma")
    assert judgement.shadow == Shadow(allow=True, rules=("s/r0",), agents=everybody, asks=("s/r0",))
    failing = policy("s", ["*"], {**ASK, "when": FAILS}, mode="shadow")
    refused = judged(Ask(), snapshot(ALLOWED, failing)).shadow
    assert refused == Shadow(allow=False, rules=("s/r0",), reason="denied-by-policy")
    again = policy("s", ["*"], ASK, mode="shadow")
    other = judged(Ask(), snapshot(policy("q", ["*"], ASK), again)).shadow
    assert other is not None
    assert other.asks == ("s/r0",)
