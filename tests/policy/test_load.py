"""From policy files to policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.control.files import read_sources
from gateway.documents import DocumentError
from gateway.policy.load import load_policies
from gateway.policy.model import Effect, Mode, Per
from gateway.policy.rate import Rate

ROOT = Path(__file__).parents[2]

POLICY = """\
apiVersion: phoenixflight.io/v1
kind: TrustPolicy
metadata: {name: %s}
spec:
  capabilities: ["code.*"]
  rules:
    - name: r
      effect: deny
      from: ["spiffe://mesh.local/ns/agents/**"]
      to: {minTrust: 0.5, labels: {tier: sandbox}}
"""


def test_a_policy_is_read_as_it_is_written() -> None:
    (policy,) = load_policies({"p.yaml": POLICY % "one"})
    (rule,) = policy.spec.rules
    assert [pattern.text for pattern in policy.spec.capabilities] == ["code.*"]
    assert (rule.name, rule.effect, rule.from_[0].text) == ("r", Effect.DENY, "spiffe://mesh.local/ns/agents/**")
    assert rule.to is not None
    assert (rule.to.min_trust, rule.to.labels) == (0.5, {"tier": "sandbox"})


def test_policies_come_sorted_by_name_from_however_many_files() -> None:
    loaded = load_policies(
        {"a.yaml": POLICY % "c" + "---\n" + POLICY % "a", "b.yaml": POLICY % "b", "c.yaml": "# none"}
    )
    assert [policy.metadata.name for policy in loaded] == ["a", "b", "c"]


def test_two_rules_of_one_name_are_refused_at_the_second() -> None:
    second = '    - {name: r, effect: allow, from: ["spiffe://mesh.local"]}\n'
    with pytest.raises(DocumentError, match=r"p.yaml:11:14: spec.rules.1.name: two rules are named 'r'"):
        load_policies({"p.yaml": POLICY % "one" + second})


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('["code.*"]', "[]", "5:17: spec.capabilities: expected at least 1 item"),
        ('["spiffe://mesh.local/ns/agents/**"]', "[]", "9:13: spec.rules.0.from: expected at least 1 item"),
        ("minTrust: 0.5", "minTrust: 2", "10:22: spec.rules.0.to.minTrust: expected 1.0 or less"),
        ("minTrust: 0.5", "minTrust: high", "10:22: spec.rules.0.to.minTrust: expected a number"),
        ("tier: sandbox", "tier: 1", "10:42: spec.rules.0.to.labels.tier: expected text"),
        ("minTrust", "mintrust", "10:12: unknown field 'mintrust'; did you mean 'minTrust'?"),
        ("  capabilities:", "  ttl: 1s\n  capabilities:", "5:3: unknown field 'ttl'"),
        (
            "kind: TrustPolicy\n",
            "",
            "1:1: kind: expected TrustPolicy or MembershipPolicy or UpstreamCredential or TokenExchange, found none",
        ),
    ],
)
def test_a_mistake_is_told_where_it_stands(old: str, new: str, told: str) -> None:
    assert old in POLICY
    with pytest.raises(DocumentError) as caught:
        load_policies({"p.yaml": (POLICY % "one").replace(old, new)})
    assert any(str(each).startswith(f"p.yaml:{told}") for each in caught.value.problems), caught.value.problems


ALLOW = """\
apiVersion: phoenixflight.io/v1
kind: TrustPolicy
metadata: {name: whole}
spec:
  mode: shadow
  capabilities: ["code.*"]
  rules:
    - name: r
      effect: allow
      from: ["spiffe://mesh.local"]
      to: {minTrust: 0.85, labels: {tier: sandbox}}
      when: "packet.hops < 4 && request.method in ['POST']"
      agentWhen: agent.trust > 0.9
      require: {signature: true, signers: ["spiffe://mesh.local/ns/*/sa/x"], contentDigest: true}
      grant: {capabilities: ["tool.*"], budget: {tokens: 20000}, ttl: 120s}
      limits: {rate: "50/s", per: conversation}
"""


def test_every_part_of_a_rule_is_read() -> None:
    (policy,) = load_policies({"p.yaml": ALLOW})
    (rule,) = policy.spec.rules
    assert policy.spec.mode is Mode.SHADOW
    assert rule.when is not None
    assert rule.agent_when is not None
    assert rule.require is not None
    assert rule.grant is not None
    assert rule.limits is not None
    assert (rule.when.text[:15], rule.agent_when.text) == ("packet.hops < 4", "agent.trust > 0.9")
    assert (rule.require.signature, rule.require.content_digest) == (True, True)
    assert [each.text for each in rule.require.signers or ()] == ["spiffe://mesh.local/ns/*/sa/x"]
    assert [each.text for each in rule.grant.capabilities] == ["tool.*"]
    assert (rule.grant.budget, rule.grant.ttl_s) == ({"tokens": 20000}, 120.0)
    assert (rule.limits.rate, rule.limits.per) == (Rate(50, 1.0), Per.CONVERSATION)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("mode: shadow", "mode: audit", "5:9: spec.mode: expected 'enforce' or 'shadow'"),
        ("packet.hops < 4", "packet.hop < 4", "12:13: spec.rules.0.when: unknown name 'packet.hop'; did you mean"),
        ("packet.hops < 4", "packet.hops", "12:13: spec.rules.0.when: found no matching overload for '_&&_'"),
        ("agent.trust > 0.9", "agent.trust >", "13:18: spec.rules.0.agentWhen: Syntax error"),
        ("agent.trust > 0.9", "agent.name", "13:18: spec.rules.0.agentWhen: expected a condition"),
        ("agent.trust > 0.9", "true", "13:18: spec.rules.0.agentWhen: expected an expression, as text in quotes"),
        ("signature: true, s", "s", "14:26: spec.rules.0.require.signers: signers are for a required signature"),
        ("signature: true", "signature: 1", "14:28: spec.rules.0.require.signature: expected true or false"),
        ("ns/*/sa/x", "ns//x", "14:44: spec.rules.0.require.signers.0: 'spiffe://mesh.local/ns//x' is not"),
        ('["tool.*"]', '["to ol"]', "15:30: spec.rules.0.grant.capabilities.0: 'to ol' is not"),
        ("tokens: 20000", "tokens: -1", "15:58: spec.rules.0.grant.budget.tokens: expected 0 or more"),
        ("ttl: 120s", "ttl: 6m", "15:71: spec.rules.0.grant.ttl: expected 300.0 or less"),
        ("50/s", "50 a second", "16:22: spec.rules.0.limits.rate: expected a rate such as 50/s"),
        ("50/s", "0/s", "16:22: spec.rules.0.limits.rate: expected a rate"),
        ("per: conversation", "per: day", "16:35: spec.rules.0.limits.per: expected 'principal'"),
        ("effect: allow", "effect: deny", "14:16: spec.rules.0.require: goes with effect: allow"),
    ],
)
def test_a_term_that_means_nothing_is_refused_where_it_stands(old: str, new: str, told: str) -> None:
    assert old in ALLOW
    with pytest.raises(DocumentError) as caught:
        load_policies({"p.yaml": ALLOW.replace(old, new)})
    assert any(str(each).startswith(f"p.yaml:{told}") for each in caught.value.problems), caught.value.problems


def test_a_requirement_of_nothing_is_refused() -> None:
    text = POLICY.replace("effect: deny", "effect: allow\n      require: {signature: false}") % "one"
    with pytest.raises(DocumentError, match=r"p.yaml:9:16: spec.rules.0.require: requires nothing"):
        load_policies({"p.yaml": text})


def test_the_policies_that_ship_can_be_loaded() -> None:
    loaded = load_policies(read_sources(ROOT / "policies"))
    assert [policy.metadata.name for policy in loaded] == [
        "code-execution",
        "partner-bounds",
        "partner-reviews",
        "quarantine",
        "review",
        "tasks",
    ]
