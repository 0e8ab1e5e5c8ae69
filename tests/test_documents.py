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
        ("effect: allow", "effect: maybe", "8:15", "'allow', 'ask' or 'deny'"),
        ("spiffe://mesh.local/ns/agents/**", "spiffe://*/x", "9:14", "is not a SPIFFE pattern"),
        ('["code.*"]', '["co de"]', "5:18", "is not a capability pattern"),
        ("kind: TrustPolicy", "kind: Gateway", "2:7", "expected TrustPolicy"),
        ("phoenixflight.io/v1", "v2", "1:13", "expected phoenixflight.io/v1"),
        ("metadata: {name: one}", "metadata: {name: one, name: two}", "3:23", "twice"),
        ("  rules:", "  rules: [", "", "not YAML"),
        ("      from:", "      if: 'true'\n      from:", "9:7", "unknown field 'if'"),
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
        ("[code.execute]", "[code.execute]\n      trust: 1.5", "trust: expected 1.0 or less"),
        ("[code.execute]", "[]", "at least 1 item"),
        ("[code.execute]", "[code.execute]\n      trust: true", "9:14: spec.agents.0.trust: expected a number"),
        ("[code.execute]", "[code.execute]\n      trust: .nan", "9:14: spec.agents.0.trust: expected a number"),
        ("127.0.0.1:80", "127.0.0.1:0", "7:16: spec.agents.0.address: nobody can be reached on port 0"),
        ("127.0.0.1:80", "'[::::]:80'", "expected host:port"),
        ("name: a", "name: A_1", "6:13: spec.agents.0.name: 'A_1' is not a name"),
        ("capabilities: [code.execute]", "spiffe_id: x", "8:7: unknown field 'spiffe_id'; did you mean 'spiffeId'"),
        ("[code.execute]", "[code.execute]\n      protocol: h3", "'http/1.1', 'h2c' or 'h2'"),
        ("[code.execute]", "[x]\n      protocol: h2c\n      spiffeId: spiffe://a/b", "can show no identity"),
        (
            "    - name: a\n",
            "    - {name: a, address: '[::1]:1', capabilities: [x]}\n    - name: a\n",
            "7:13: spec.agents.1.name: two agents",
        ),
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
        "a: !!bool maybe",
        "a: &a [*a]",
        "a: &a [" + "x, " * 3000 + "]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: &d [*c, *c, *c]\ne: [*d, *d, *d]",
        "- a list",
        "a: \x00",
    ],
    ids=[
        "aliases",
        "deep",
        "giant",
        "a tag",
        "a tag that its value denies",
        "an alias inside itself",
        "aliases of aliases",
        "no mapping",
        "control character",
    ],
)
def test_hostile_yaml_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        parse(text, "x.yaml")


def test_an_anchor_may_be_used_again() -> None:
    text = AGENTS.replace("[code.execute]", "&doable [code.execute]")
    text += "    - {name: b, address: 127.0.0.1:81, capabilities: *doable}\n"
    assert [agent.capabilities for agent in load_agents(text, "a.yaml")] == [frozenset({"code.execute"})] * 2


@pytest.mark.parametrize("text", ["no", "on", "1:30", "2026-11-23", "0x1f", "'7'"])
def test_only_true_false_null_and_decimal_numbers_are_more_than_text(text: str) -> None:
    assert parse(f"a: {text}", "x.yaml")[0].content == {"a": text.strip("'")}


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("~", None), ("", None), ("-7", -7), (".5", 0.5), ("1e3", 1000.0)]
)
def test_true_false_null_and_numbers_are_what_they_look_like(text: str, value: object) -> None:
    assert parse(f"a: {text}", "x.yaml")[0].content == {"a": value}


def test_documents_without_content_are_passed_over() -> None:
    assert [document.content for document in parse("---\n# nothing\n---\na: 1\n---\n", "x.yaml")] == [{"a": 1}]
    assert parse("# nothing\n", "x.yaml") == []
