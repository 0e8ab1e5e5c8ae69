"""From policy files to policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.control.config import read_sources
from gateway.documents import DocumentError
from gateway.policy.load import load_policies
from gateway.policy.model import Effect, parse_capability_pattern

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
        ("  capabilities:", "  mode: audit\n  capabilities:", "5:3: unknown field 'mode'"),
        ("kind: TrustPolicy\n", "", "1:1: kind: expected TrustPolicy, found none"),
    ],
)
def test_a_mistake_is_told_where_it_stands(old: str, new: str, told: str) -> None:
    assert old in POLICY
    with pytest.raises(DocumentError) as caught:
        load_policies({"p.yaml": (POLICY % "one").replace(old, new)})
    assert any(str(each).startswith(f"p.yaml:{told}") for each in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("code.execute", "code.execute", True),
        ("code.execute", "code.executed", False),
        ("code.*", "code.execute.fast", True),
        ("code.*", "codexexecute", False),
        ("*", "anything.at-all", True),
        ("*.python", "lang.python", True),
        ("*.python", "python", False),
        ("a*c", "abc", True),
    ],
)
def test_a_star_covers_any_run_of_characters(pattern: str, name: str, covered: bool) -> None:
    assert parse_capability_pattern(pattern).matches(name) is covered


def test_a_row_of_stars_is_one_star_and_as_fast() -> None:
    assert not parse_capability_pattern("*" * 200 + "b").matches("a" * 200)


def test_the_policies_that_ship_can_be_loaded() -> None:
    loaded = load_policies(read_sources(ROOT / "policies"))
    assert [policy.metadata.name for policy in loaded] == ["code-execution", "quarantine", "review"]
