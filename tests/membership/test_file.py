"""Agents from a YAML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.documents import DocumentError
from gateway.membership.file import load_agents, load_listed
from gateway.routing import Agent, AgentState, Protocol

ROOT = Path(__file__).parents[2]

AGENTS = """\
apiVersion: phoenixflight.io/v1
kind: AgentList
metadata: {name: local}
spec:
  agents:
    - name: reviewer
      address: "[::1]:7103"
      capabilities: [code.review, lang.python]
      trust: 0.5
      labels: {zone: a, tier: sandbox}
      protocol: h2
      spiffeId: spiffe://mesh.local/ns/agents/sa/reviewer
      state: draining
      contextPath: /context
    - {name: executor, address: "agents.local:80", capabilities: [code.execute]}
"""


def test_agents_are_read_as_they_are_written_and_sorted_by_name() -> None:
    executor, reviewer = load_agents(AGENTS, "agents.yaml")
    assert executor == Agent("executor", "agents.local", 80, frozenset({"code.execute"}))
    assert (executor.trust, executor.protocol, executor.state, executor.tls) == (
        1.0,
        Protocol.HTTP1,
        AgentState.READY,
        False,
    )
    assert (reviewer.host, reviewer.port, reviewer.trust) == ("::1", 7103, 0.5)
    assert reviewer.capabilities == {"code.review", "lang.python"}
    assert reviewer.labels == (("tier", "sandbox"), ("zone", "a"))
    assert (reviewer.protocol, reviewer.state, reviewer.tls) == (Protocol.H2, AgentState.DRAINING, True)
    assert reviewer.spiffe_id == "spiffe://mesh.local/ns/agents/sa/reviewer"
    assert (reviewer.context_path, executor.context_path) == ("/context", "")


def test_an_agent_whose_card_is_to_be_read_may_name_no_capability() -> None:
    text = AGENTS.replace("capabilities: [code.execute]", "agentCard: true")
    listed = load_listed(text, "agents.yaml")
    assert listed.with_card == {"executor"}
    assert [agent.capabilities for agent in listed.agents] == [frozenset(), {"code.review", "lang.python"}]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (", capabilities: [code.execute]", "", "15:7: spec.agents.1.capabilities: expected at least 1 item(s)"),
        ("capabilities: [code.execute]", "agentCard: 1", "15:63: spec.agents.1.agentCard: expected true or false"),
        ("name: executor", "name: reviewer", "15:14: spec.agents.1.name: two agents are named 'reviewer'"),
        ("protocol: h2", "protocol: h2c", "12:17: spec.agents.0.spiffeId: h2c is plaintext"),
        ("agents.local:80", "agents.local", "15:33: spec.agents.1.address: expected host:port"),
        ("agents.local:80", "agents..local:80", "15:33: spec.agents.1.address: expected host:port"),
        ("agents.local:80", "a" * 64 + ".local:80", "15:33: spec.agents.1.address: expected host:port"),
        ("agents.local:80", "agents.local:0", "15:33: spec.agents.1.address: nobody can be reached on port 0"),
        ("trust: 0.5", "trust: -1", "9:14: spec.agents.0.trust: expected 0.0 or more"),
        ("state: draining", "state: ejected", "13:14: spec.agents.0.state: expected 'ready' or 'draining'"),
        ("/context", "context", "14:20: spec.agents.0.contextPath: expected a path, such as /context, not 'context'"),
        ("/context", '"/a b"', "14:20: spec.agents.0.contextPath: expected a path"),
        ("[code.execute]", "[code execute]", "15:67: spec.agents.1.capabilities.0: 'code execute' is not a capability"),
        ("kind: AgentList", "kind: TrustPolicy", "2:7: kind: expected AgentList, found TrustPolicy"),
    ],
)
def test_a_mistake_is_told_where_it_stands(old: str, new: str, told: str) -> None:
    assert old in AGENTS
    with pytest.raises(DocumentError) as caught:
        load_agents(AGENTS.replace(old, new), "agents.yaml")
    assert any(str(each).startswith(f"agents.yaml:{told}") for each in caught.value.problems), caught.value.problems


def test_one_list_stands_in_a_file() -> None:
    with pytest.raises(DocumentError, match="expected one AgentList document, found 2"):
        load_agents(f"{AGENTS}---\n{AGENTS}", "agents.yaml")


def test_the_agents_that_ship_can_be_loaded() -> None:
    path = ROOT / "config" / "agents.yaml"
    assert [agent.name for agent in load_agents(path.read_text(), str(path))] == [
        "executor-1",
        "executor-2",
        "reviewer",
    ]
