"""CEL in policies: checked when a document is read, evaluated on what is there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.identity import Principal, SpiffeId
from gateway.messages import RequestHead
from gateway.packet import Capabilities, FlightPacket
from gateway.policy.cel import MAX_EXPRESSION_CHARACTERS, ConditionError
from gateway.policy.facts import (
    DEFAULT_HOPS,
    ON_AGENTS,
    ON_PACKETS,
    AgentFacts,
    Evidence,
    PacketFacts,
    agent_condition,
    packet_condition,
)
from gateway.routing import Agent, Protocol

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
CALLER = SpiffeId("spiffe://mesh.local/ns/agents/sa/planner")
PACKET = FlightPacket(
    "id-1", Capabilities(("a", "b"), 0.5), b"c-1", "c-1", "t-1", "p-1", 1500, budget={"tokens": 12, "hops": 3}
)
HEAD = RequestHead(
    b"CONNECT",
    b"https",
    b"gateway:8443",
    b"/run/\xe9?x=1",
    [],
    b"websocket",
)
FACTS = PacketFacts(PACKET, HEAD, Principal(CALLER), Evidence(CALLER), NOON)
AGENT = AgentFacts(
    Agent("a-1", "h", 80, frozenset({"y", "x"}), 0.5, (("tier", "prod"),), Protocol.H2), Principal(CALLER)
)


def on_packet(text: str, facts: PacketFacts = FACTS) -> bool | str:
    expression = packet_condition(text)
    return expression.evaluate(ON_PACKETS.bind(expression.variables, facts))


@pytest.mark.parametrize(
    "text",
    [
        "packet.id == 'id-1'",
        "packet.capabilities == ['a', 'b']",
        "packet.conversation == 'c-1' && packet.task == 't-1' && packet.parent == 'p-1'",
        "packet.timeoutMs == 1500",
        "packet.hops == 3",
        "packet.budget == {'tokens': 12, 'hops': 3}",
        "packet.minTrust == 0.5",
        "packet.signed && packet.signer == principal.id",
        "principal.trustDomain == 'mesh.local'",
        "principal.namespace == 'agents' && principal.serviceAccount == 'planner'",
        "request.method == 'CONNECT' && request.protocol == 'websocket' && request.scheme == 'https'",
        "request.authority == 'gateway:8443'",
        "request.path == '/run/\u00e9'",
        "lineage == []",
        "now == timestamp('2026-01-01T12:00:00Z')",
        "packet . \n hops == 3",
    ],
)
def test_a_condition_sees_the_packet_its_sender_and_the_request(text: str) -> None:
    assert on_packet(text) is True


def test_what_a_packet_does_not_set_has_a_default() -> None:
    bare = PacketFacts(
        FlightPacket("i", Capabilities(("a",)), b"i"),
        RequestHead(b"GET", b"http", b"g", b"/", []),
        Principal(SpiffeId("spiffe://mesh.local/planner")),
        Evidence(),
        NOON,
    )
    assert on_packet(f"packet.hops == {DEFAULT_HOPS} && packet.budget == {{}}", bare) is True
    assert on_packet("packet.task == '' && packet.timeoutMs == 0", bare) is True
    assert on_packet("!packet.signed && packet.signer == ''", bare) is True
    assert on_packet("principal.namespace == '' && principal.serviceAccount == ''", bare) is True


@pytest.mark.parametrize(
    "text",
    [
        "agent.name == 'a-1' && agent.protocol == 'h2'",
        "agent.trust >= 0.5 && agent.labels.tier == 'prod'",
        "agent.capabilities == ['x', 'y']",
        "principal.namespace == 'agents'",
    ],
)
def test_an_agents_condition_sees_the_agent_and_the_sender(text: str) -> None:
    expression = agent_condition(text)
    assert expression.evaluate(ON_AGENTS.bind(expression.variables, AGENT)) is True


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("packet.hops <", "mismatched input '<EOF>' (character 14 of the expression)"),
        ("packet.hop < 4", "unknown name 'packet.hop'; did you mean 'packet.hops'? (character 7"),
        ("packet.hops < '4'", "no matching overload for '_<_' applied to '(int, string)' (character 13"),
        ("packet.task == 't'\n  && packet.zzz", "unknown name 'packet.zzz' (line 2, character 12"),
        ("packet.hops", "expected a condition, which is true or false; this is of type int"),
        ("packet.budget.tokens > 'x'", "applied to '(int, string)'"),
        ("dyn(packet.signed)", "of type dyn"),
        ("agent.trust > 0.5", "unknown name 'agent.trust'"),
        ("packet == packet", "unknown name 'packet'"),
        ("exec('x')", "unknown name 'exec'"),
        ("(" * 100 + "true" + ")" * 100, "recursion limit"),
        ("true || " * 600 + "true", f"longer than {MAX_EXPRESSION_CHARACTERS} characters"),
        ("", "mismatched input"),
    ],
)
def test_what_is_no_condition_is_told_when_it_is_read(text: str, told: str) -> None:
    with pytest.raises(ConditionError) as caught:
        packet_condition(text)
    assert told in str(caught.value)


def test_agents_are_chosen_without_looking_at_the_packet() -> None:
    with pytest.raises(ConditionError, match=r"unknown name 'packet.hops'"):
        agent_condition("packet.hops > 1")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("packet.budget.other > 1", "Key not found"),
        ("packet.capabilities[7] == 'a'", "index=7"),
        ("packet.hops / 0 == 1", "divide by zero"),
        ("packet.id.matches(packet.id + '(')", "invalid regular expression"),
    ],
)
def test_a_condition_that_cannot_be_evaluated_says_why(text: str, told: str) -> None:
    value = on_packet(text)
    assert isinstance(value, str)
    assert told in value


def test_a_condition_cannot_hold_the_gateway_up() -> None:
    many = tuple(f"c{number}" for number in range(200))
    packet = FlightPacket("i", Capabilities(many), b"i")
    value = on_packet(
        "packet.capabilities.all(a, packet.capabilities.all(b, packet.capabilities.all(c, a + b + c != '')))",
        PacketFacts(packet, HEAD, Principal(CALLER), Evidence(), NOON),
    )
    assert isinstance(value, str)
    assert "budget" in value


def test_the_same_text_is_compiled_once() -> None:
    assert packet_condition("packet.hops < 77") is packet_condition("packet.hops < 77")


def test_only_what_an_expression_may_read_is_bound() -> None:
    assert packet_condition("packet.hops < 4 && request.method == 'GET'").variables == {"packet.hops", "request.method"}
