"""A policy in shadow changes nothing, and tells what it would change."""

from __future__ import annotations

from gateway.decision import Route, Shadow
from tests.policy.worlds import ALLOW, DENY, PLANNER, STRANGER, Ask, judged, policy, snapshot

ALLOWED = policy("a", ["*"], ALLOW)


def test_a_refusal_there_would_be_is_told_by_rule_and_reason() -> None:
    deny = policy("s", ["*"], {**DENY, "when": "packet.task == ''"}, mode="shadow")
    judgement = judged(Ask(), snapshot(ALLOWED, deny))
    assert isinstance(judgement.route, Route)
    assert judgement.shadow == Shadow(allow=False, rules=("s/r0",), reason="denied-by-policy")
    assert judged(Ask(task="t"), snapshot(ALLOWED, deny)).shadow is None


def test_a_deny_that_would_fail_is_told_too() -> None:
    deny = policy("s", ["*"], {**DENY, "when": "packet.budget.spare > 0"}, mode="shadow")
    judgement = judged(Ask(), snapshot(ALLOWED, deny))
    assert isinstance(judgement.route, Route)
    assert judgement.shadow == Shadow(allow=False, rules=("s/r0",), reason="denied-by-policy")


def test_a_packet_that_would_be_let_through_is_still_refused() -> None:
    wider = policy("s", ["*"], {"effect": "allow", "from": ["spiffe://else.example"]}, mode="shadow")
    judgement = judged(Ask(caller=STRANGER), snapshot(ALLOWED, wider))
    assert not isinstance(judgement.route, Route)
    assert judgement.shadow == Shadow(allow=True, rules=("s/r0",), agents=("alpha", "beta", "gamma"))


def test_other_agents_are_told() -> None:
    deny = policy("s", ["*"], {**DENY, "to": {"labels": {"tier": "prod"}}}, mode="shadow")
    judgement = judged(Ask(), snapshot(ALLOWED, deny))
    assert judgement.shadow == Shadow(allow=True, rules=("s/r0",), agents=("alpha", "gamma"))
    assert set(judgement.grants) == {"alpha", "beta", "gamma"}


def test_what_would_be_the_same_is_not_told() -> None:
    again = policy("s", ["*"], ALLOW, mode="shadow")
    others = policy("t", ["*"], {**DENY, "from": ["spiffe://else.example"]}, mode="shadow")
    assert judged(Ask(caller=PLANNER), snapshot(ALLOWED, again, others)).shadow is None
