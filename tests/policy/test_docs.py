"""docs/policy.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.documents import parse
from gateway.policy.facts import DEFAULT_HOPS, ON_AGENTS, ON_PACKETS
from gateway.policy.load import load_policies
from gateway.policy_cases import PolicyTest

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_of_a_policy_is_valid() -> None:
    (policy,) = load_policies({"page": YAML[0]})
    (rule,) = policy.spec.rules
    assert all(value is not None for _, value in rule), "it shows every field"


def test_the_example_of_cases_is_valid() -> None:
    (document,) = parse(YAML[1], "page")
    (case,) = document.validate(PolicyTest).spec.cases
    assert case.model_fields_set >= {"signer", "now", "rule", "agent"}


def test_every_variable_is_on_the_page() -> None:
    for name in (*ON_PACKETS.names, *ON_AGENTS.names):
        assert f"`{name}`" in PAGE
    assert f"{DEFAULT_HOPS} when neither sets any" in PAGE
