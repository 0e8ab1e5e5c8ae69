"""docs/cookbook.md: each recipe is loaded as it stands, and each of its cases comes out as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.cli.policy import test as policy_test
from gateway.identity import Principal, SpiffeId
from gateway.policy.load import load_all, load_policies
from gateway.policy.membership import Admitting, Application, MembershipPolicySet
from gateway.refusal import Refusal

PAGE = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text()
_, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
AGENTS = YAML.findall(PAGE)[0]
RECIPES = {section.splitlines()[0]: YAML.findall(section) for section in SECTIONS}
TRUST = {name: blocks for name, blocks in RECIPES.items() if "kind: TrustPolicy" in blocks[0]}
HEAD = """\
apiVersion: phoenixflight.io/v1
kind: PolicyTest
metadata: {name: recipe}
spec:
  policies: policies
  members: agents.yaml
"""


@pytest.mark.parametrize("name", TRUST)
def test_a_recipe_does_what_its_cases_say(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, cases = TRUST[name]
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "recipe.yaml").write_text(policy)
    (tmp_path / "agents.yaml").write_text(AGENTS)
    (tmp_path / "cases.yaml").write_text(HEAD + re.sub("^", "  ", cases, flags=re.MULTILINE))
    policy_test([tmp_path / "cases.yaml"])
    assert ", 0 failed" in capsys.readouterr().out


def test_a_rate_is_what_the_recipe_says() -> None:
    (policy,) = load_policies({"page": TRUST["How often"][0]})
    limits = policy.spec.rules[0].limits
    assert limits is not None
    assert (limits.rate.text, limits.per.value) == ("60/m", "conversation")


def test_who_may_register_what_is_what_the_recipe_says() -> None:
    policies = MembershipPolicySet(load_all({"page": RECIPES["Who may register"][0]}).membership)
    planner = Principal(SpiffeId("spiffe://mesh.local/ns/agents/sa/planner"))

    def asks(capability: str, trust: float) -> Admitting | Refusal:
        return policies.admits(planner, Application("planner-1", "10.1.2.3", "", frozenset({capability}), trust))

    assert isinstance(asks("plan", 0.8), Admitting)
    assert isinstance(asks("pay", 0.8), Refusal)
    assert isinstance(asks("plan", 0.95), Refusal)


def test_every_recipe_is_tested() -> None:
    assert set(RECIPES) - set(TRUST) == {"Who may register"}
    assert all(len(blocks) == 2 for blocks in TRUST.values())
