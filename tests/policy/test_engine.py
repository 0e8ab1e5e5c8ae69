"""What the policies say, against a naive reading of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import Principal, SpiffeId
from gateway.policy import Allow, PolicySet
from gateway.policy.model import Effect, TrustPolicy
from gateway.routing import Agent

PLANNER = Principal(SpiffeId("spiffe://mesh.local/ns/agents/sa/planner-1"))


def policy(name: str, capabilities: list[str], *rules: dict[str, Any]) -> TrustPolicy:
    named = [{"name": f"rule-{at}", **rule} for at, rule in enumerate(rules)]
    return TrustPolicy.model_validate(
        {"metadata": {"name": name}, "spec": {"capabilities": capabilities, "rules": named}}
    )


def agent(name: str = "a", trust: float = 1.0, **labels: str) -> Agent:
    return Agent(name, "127.0.0.1", 80, frozenset({"code.execute"}), trust, tuple(sorted(labels.items())))


ALLOW = {"effect": "allow", "from": ["spiffe://mesh.local/ns/agents/sa/planner-*"]}


def test_silence_is_a_refusal() -> None:
    ruling = PolicySet([policy("p", ["code.*"], ALLOW)]).rule_on(PLANNER, ["web.fetch"])
    assert not isinstance(ruling, Allow)
    assert ruling.grant is None


def test_every_capability_needs_an_allow() -> None:
    policies = PolicySet([policy("p", ["code.*"], ALLOW)])
    assert isinstance(policies.rule_on(PLANNER, ["code.execute"]), Allow)
    ruling = policies.rule_on(PLANNER, ["code.execute", "admin.root"])
    assert not isinstance(ruling, Allow)
    assert ruling.capability == "admin.root"


def test_to_narrows_the_agents() -> None:
    narrow = {**ALLOW, "to": {"minTrust": 0.8, "labels": {"tier": "sandbox"}}}
    ruling = PolicySet([policy("p", ["*"], narrow)]).rule_on(PLANNER, ["code.execute"])
    assert isinstance(ruling, Allow)
    assert ruling.admits(agent(trust=0.9, tier="sandbox", zone="a")) is not None
    assert ruling.admits(agent(trust=0.7, tier="sandbox")) is None
    assert ruling.admits(agent(trust=0.9)) is None


def test_a_deny_with_to_shuts_out_those_agents_alone() -> None:
    deny = {"effect": "deny", "from": ["spiffe://mesh.local"], "to": {"labels": {"tier": "prod"}}}
    ruling = PolicySet([policy("p", ["*"], ALLOW, deny)]).rule_on(PLANNER, ["code.execute"])
    assert isinstance(ruling, Allow)
    assert ruling.admits(agent(tier="prod")) is None
    assert ruling.admits(agent(tier="test")) is not None


patterns = st.sampled_from(
    ["spiffe://mesh.local", "spiffe://mesh.local/ns/*/sa/planner-*", "spiffe://mesh.local/ns/other/**", "spiffe://else"]
)
rules = st.fixed_dictionaries(
    {"effect": st.sampled_from(["allow", "deny"]), "from": st.lists(patterns, min_size=1, max_size=2)},
    optional={"to": st.fixed_dictionaries({"minTrust": st.sampled_from([0.2, 0.8])})},
)
capability = st.sampled_from(["code.execute", "code.review", "web.fetch"])
documents = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["*", "code.*", "web.fetch"]), min_size=1, max_size=2),
        st.lists(rules, min_size=1, max_size=3),
    ),
    max_size=4,
).map(lambda drawn: [policy(f"p{at}", names, *each) for at, (names, each) in enumerate(drawn)])
wanted = st.lists(capability, min_size=1, max_size=3, unique=True)


def admits(policies: PolicySet, capabilities: Sequence[str], to: Agent) -> bool:
    ruling = policies.rule_on(PLANNER, capabilities)
    return isinstance(ruling, Allow) and ruling.admits(to) is not None


def naive(policies: list[TrustPolicy], capabilities: Sequence[str], to: Agent) -> bool:
    """Every rule, one by one, straight from the page."""
    covered = set()
    for each in policies:
        for name in capabilities:
            if not any(pattern.matches(name) for pattern in each.spec.capabilities):
                continue
            for rule in each.spec.rules:
                if not any(pattern.matches(PLANNER.id) for pattern in rule.from_):
                    continue
                if rule.to is not None and to.trust < rule.to.min_trust:
                    continue
                if rule.effect is Effect.DENY:
                    return False
                covered.add(name)
    return covered == set(capabilities)


@given(documents, wanted, st.sampled_from([0.1, 0.5, 1.0]))
def test_the_engine_reads_rules_as_the_page_does(
    policies: list[TrustPolicy], capabilities: list[str], trust: float
) -> None:
    to = agent(trust=trust)
    assert admits(PolicySet(policies), capabilities, to) == naive(policies, capabilities, to)


@given(documents, wanted, rules, st.sampled_from([0.1, 0.5, 1.0]))
def test_another_deny_never_allows_more(
    policies: list[TrustPolicy], capabilities: list[str], rule: dict[str, Any], trust: float
) -> None:
    to = agent(trust=trust)
    denied = [*policies, policy("denies", ["*"], {**rule, "effect": "deny"})]
    assert admits(PolicySet(policies), capabilities, to) or not admits(PolicySet(denied), capabilities, to)


@given(documents, wanted, st.randoms())
def test_the_order_of_documents_never_matters(policies, capabilities, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = policies[:]
    random.shuffle(shuffled)
    assert PolicySet(shuffled).rule_on(PLANNER, capabilities) == PolicySet(policies).rule_on(PLANNER, capabilities)
