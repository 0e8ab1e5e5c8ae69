"""Which conversations may be carried from one agent to another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.packet import Capabilities, FlightPacket
from gateway.proxy.migration import Migrations
from gateway.routes import Granted, Route
from gateway.routing import Agent, AgentState, Load, Ring

OLD = Agent("old", "h", 80, frozenset({"a"}), state=AgentState.DRAINING, context_path="/context")
NEW = replace(OLD, name="new", state=AgentState.READY)
ADMITTED = {name: Granted("p", "r", b"") for name in ("old", "new")}


def possible(*, old: Agent = OLD, new: Agent = NEW, grants: Any = ADMITTED, affinity: bytes = b"c") -> bool:
    ring = Ring([new], 1)
    route = Route(ring, grants, Load(), ring, {"old": old, "new": new})
    return Migrations.possible(route, FlightPacket("id", Capabilities(("a",)), affinity), old, new)


def test_it_leaves_a_draining_agent_for_another_that_can_take_it() -> None:
    assert possible()


def test_a_packet_has_no_agent_tell_what_it_knows_that_policy_does_not_admit_it_at() -> None:
    assert not possible(grants={"new": ADMITTED["new"]})


@pytest.mark.parametrize("state", [AgentState.READY, AgentState.EJECTED, AgentState.RETIRED])
def test_only_an_agent_that_drains_is_left(state: AgentState) -> None:
    assert not possible(old=replace(OLD, state=state))


def test_both_agents_must_offer_it() -> None:
    assert not possible(old=replace(OLD, context_path=""))
    assert not possible(new=replace(NEW, context_path=""))


@pytest.mark.parametrize("affinity", [b"\xe9", b"a\tb"])
def test_a_session_that_cannot_be_said_as_a_string_stays(affinity: bytes) -> None:
    assert not possible(affinity=affinity)
