"""Mistakes in documents are told with file, line and column."""

from __future__ import annotations

import pytest

from gateway.documents import DocumentError, parse
from gateway.membership.file import load_agents
from gateway.policy.load import load_policies

POLICY = """\
apiVersion: phoenixflight.io/v1
kind: TrustPolicy
metadata: {name: one}
spec:
  capabilities: ["code.*"]
  rules:
    - name: r
      effect: allow
      from: ["spiffe://mesh.local/ns/agents/**"]
"""

AGENTS = """\
apiVersion: phoenixflight.io/v1
kind: AgentList
metadata: {name: local}
spec:
  agents:
    - name: a
      address: 127.0.0.1:80
      capabilities: [code.execute]
"""


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("effect: allow", "efect: allow", "8:7", "did you mean 'effect'"),
        ("      effect: allow\n", "", "7:", "required"),
        ("effect: allow", "effect: maybe", "8:15", "'allow' or 'deny'"),
        ("spiffe://mesh.local/ns/agents/**", "spiffe://*/x", "9:14", "is not a SPIFFE pattern"),
        ('["code.*"]', '["co de"]', "5:18", "is not a capability pattern"),
        ("kind: TrustPolicy", "kind: Gateway", "2:7", "expected TrustPolicy"),
        ("phoenixflight.io/v1", "v2", "1:13", "expected phoenixflight.io/v1"),
        ("metadata: {name: one}", "metadata: {name: one, name: two}", "3:23", "twice"),
        ("  rules:", "  rules: [", "", "not YAML"),
        ("      from:", "      when: 'true'\n      from:", "9:7", "unknown field 'when'"),
    ],
)
def test_a_bad_policy_is_refused_where_it_is_bad(old: str, new: str, where: str, what: str) -> None:
    assert old in POLICY
    with pytest.raises(DocumentError) as caught:
        load_policies({"p.yaml": POLICY.replace(old, new)})
    told = [str(problem) for problem in caught.value.problems]
    assert any(each.startswith(f"p.yaml:{where}") and what in each for each in told), told


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("127.0.0.1:80", "nowhere", "expected host:port"),
        ("127.0.0.1:80", "127.0.0.1:99999", "expected host:port"),
        ("[code.execute]", "[code.execute]\n      trust: 1.5", "less than or equal to 1"),
        ("[code.execute]", "[]", "at least 1 item"),
        ("[code.execute]", "[code.execute]\n      protocol: h3", "'http/1.1', 'h2c' or 'h2'"),
        ("[code.execute]", "[x]\n      protocol: h2c\n      spiffeId: spiffe://a/b", "can show no identity"),
        ("    - name: a\n", "    - {name: a, address: '[::1]:1', capabilities: [x]}\n    - name: a\n", "two agents"),
    ],
)
def test_a_bad_member_is_refused_by_name(old: str, new: str, what: str) -> None:
    assert old in AGENTS
    with pytest.raises(DocumentError) as caught:
        load_agents(AGENTS.replace(old, new), "agents.yaml")
    assert any(what in str(problem) for problem in caught.value.problems), caught.value.problems


def test_two_policies_of_one_name_are_refused_naming_both_places() -> None:
    with pytest.raises(DocumentError, match=r"b.yaml:3:18: .*a.yaml:3"):
        load_policies({"a.yaml": POLICY, "b.yaml": POLICY})


def test_problems_of_all_files_are_told_at_once() -> None:
    with pytest.raises(DocumentError) as caught:
        load_policies({"a.yaml": "[", "b.yaml": POLICY.replace("allow", "no")})
    assert {problem.source for problem in caught.value.problems} == {"a.yaml", "b.yaml"}


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\n" + "b: [" + "*a, " * 20 + "]",
        "[" * 60 + "]" * 60,
        "a: " + "x" * (1024 * 1024),
        "!!python/object/apply:os.system [true]",
        "- a list",
        "a: \x00",
    ],
    ids=["aliases", "deep", "giant", "a tag", "no mapping", "control character"],
)
def test_hostile_yaml_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        parse(text, "x.yaml")
