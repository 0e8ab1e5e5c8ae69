"""What holds for all policies and packets, and a naive reading of the rules to hold the compiled one against."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.decision import Judgement, Route
from gateway.policy.model import Mode, Rule, TrustPolicy
from gateway.routing import Agent
from tests.policy.worlds import (
    AGENT_WHENS,
    AGENTS,
    CALLERS,
    CAPABILITIES,
    WHENS,
    Ask,
    asks,
    denies,
    documents,
    judged,
    policy,
    snapshot,
)

Outcome = tuple[str, frozenset[str]]
"""The reason of a refusal, else empty; and the agents that the packet may go to."""


def outcome(judgement: Judgement) -> Outcome:
    route = judgement.route
    if isinstance(route, Route):
        return "", frozenset(agent.name for agent in route.ring.agents)
    return route.reason.slug, frozenset()


def naive(policies: list[TrustPolicy], ask: Ask) -> Outcome:
    """Every rule of every policy, one by one, straight from the page."""
    allowing: dict[str, list[Rule]] = {name: [] for name in ask.capabilities}
    unproven: set[str] = set()
    shutting_out: list[Rule] = []
    for name in ask.capabilities:
        for each in policies:
            speaks = any(CAPABILITIES[glob.text](name) for glob in each.spec.capabilities)
            if each.spec.mode is Mode.SHADOW or not speaks:
                continue
            for rule in each.spec.rules:
                if not any(CALLERS[glob.text](ask.caller) for glob in rule.from_):
                    continue
                holds = WHENS[rule.when.text](ask) if rule.when else True
                if rule.effect.value == "deny":
                    if holds is False:
                        continue
                    if not rule.to and not rule.agent_when:
                        return "denied-by-policy", frozenset()
                    shutting_out.append(rule)
                elif holds and proven(rule, ask):
                    allowing[name].append(rule)
                elif holds:
                    unproven.add(name)
    for name, rules in allowing.items():
        if not rules:
            return "signature-invalid" if name in unproven else "no-policy-allows", frozenset()
    capable = [agent for agent in AGENTS if set(ask.capabilities) <= agent.capabilities]
    if not capable:
        return "capability-unknown", frozenset()
    eligible = frozenset(
        agent.name
        for agent in capable
        if all(any(means(rule, agent) is True for rule in rules) for rules in allowing.values())
        and not any(means(rule, agent) is not False for rule in shutting_out)
    )
    return ("" if eligible else "no-eligible-agent"), eligible


def proven(rule: Rule, ask: Ask) -> bool:
    require, evidence = rule.require, ask.evidence
    if evidence.signer not in (None, ask.caller) and not (require and require.signers):
        return False
    if require is None:
        return True
    if require.signature:
        accepted = "/sa/cod" in (evidence.signer or "") if require.signers else evidence.signer == ask.caller
        if not accepted:
            return False
    if require.content_digest:
        return evidence.digest and (not require.signature or b"content-digest" in evidence.covered)
    return True


def means(rule: Rule, agent: Agent) -> bool | None:
    """Whether the rule is about `agent`; ``None`` when its condition fails."""
    if rule.to and agent.trust < rule.to.min_trust:
        return False
    if rule.to and not set(rule.to.labels.items()) <= set(agent.labels):
        return False
    return AGENT_WHENS[rule.agent_when.text](agent) if rule.agent_when else True


@settings(max_examples=300)
@given(documents, st.lists(asks, min_size=1, max_size=4))
def test_the_compiled_decision_is_that_of_the_page(policies: list[TrustPolicy], packets: list[Ask]) -> None:
    force = snapshot(*policies)
    for ask in packets * 2:  # again, from memory
        assert outcome(judged(ask, force)) == naive(policies, ask)


@given(documents, asks, denies)
def test_another_deny_never_allows_more(policies: list[TrustPolicy], ask: Ask, deny: dict[str, Any]) -> None:
    _, before = outcome(judged(ask, snapshot(*policies)))
    _, after = outcome(judged(ask, snapshot(*policies, policy("another", ["*"], deny))))
    assert after <= before


@given(documents, asks, st.integers())
def test_the_order_of_documents_never_matters(policies: list[TrustPolicy], ask: Ask, seed: int) -> None:
    shuffled = policies[:]
    Random(seed).shuffle(shuffled)
    one, other = judged(ask, snapshot(*policies)), judged(ask, snapshot(*shuffled))
    assert (outcome(one), one.grants, one.shadow) == (outcome(other), other.grants, other.shadow)


@given(documents, asks)
def test_shadow_policies_never_change_a_verdict(policies: list[TrustPolicy], ask: Ask) -> None:
    enforced = [each for each in policies if each.spec.mode is Mode.ENFORCE]
    with_them, without = judged(ask, snapshot(*policies)), judged(ask, snapshot(*enforced))
    assert (outcome(with_them), with_them.grants) == (outcome(without), without.grants)
    assert without.shadow is None


@settings(max_examples=200)
@given(documents, asks)
def test_a_shadow_result_is_the_verdict_there_would_be(policies: list[TrustPolicy], ask: Ask) -> None:
    def enforce(each: TrustPolicy) -> TrustPolicy:
        return each.model_copy(update={"spec": each.spec.model_copy(update={"mode": Mode.ENFORCE})})

    now = judged(ask, snapshot(*policies))
    reason, agents = outcome(judged(ask, snapshot(*map(enforce, policies))))
    if now.shadow is None:
        assert agents == outcome(now)[1]
    else:
        assert (now.shadow.reason, frozenset(now.shadow.agents)) == (reason, agents)
        assert now.shadow.allow == (reason == "")
