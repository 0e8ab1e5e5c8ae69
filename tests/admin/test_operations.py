"""Operators reload, drain, eject, retire and restore; each answer says what is in force."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.membership.overrides import MAX_OVERRIDES, Override, OverrideError, Overrides
from gateway.routing import Agent, AgentState
from tests.admin.operators import ok, operator, order, packet, with_token
from tests.conftest import POLICY, RunningGateway, StartGateway, member, write_agents, write_policy
from tests.waiting import eventually

AT = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def gateway(raw_agent, start_gateway: StartGateway, tmp_path: Path) -> RunningGateway:
    port = raw_agent(ok).port
    return start_gateway([member(port), member(port, "executor-2")], admin_spec=with_token(tmp_path))


@pytest.fixture
def admin(gateway: RunningGateway):
    with operator(gateway) as client:
        yield client


def send(gateway: RunningGateway, count: int = 12, **fields: str) -> set[str]:
    """The agents that packets go to."""
    agents = set()
    with gateway.client() as client:
        for number in range(count):
            answer = client.post("/run", headers=packet(f"p{number}", **fields))
            agents.add(answer.headers.get("flight-agent", str(answer.status_code)))
    return agents


def state(admin: httpx.Client, name: str = "executor-1") -> str:
    return next(each["state"] for each in admin.get("/members").json()["members"] if each["name"] == name)


@pytest.mark.parametrize(("what", "becomes"), [("eject", "ejected"), ("retire", "retired"), ("drain", "draining")])
def test_a_member_that_an_operator_takes_out_gets_no_packets_until_it_is_restored(
    gateway: RunningGateway, admin: httpx.Client, what: str, becomes: str
) -> None:
    out = order(admin, f"members/executor-1/{what}")
    assert (out.status_code, out.json()["state"], out.json()["share"]) == (200, becomes, 0.0)
    assert "by token from 127.0.0.1 at 20" in out.json()["why"]
    assert send(gateway) == {'"executor-2"'}, "from the answer on"
    write_agents(gateway.folder, [{**each, "trust": 0.9} for each in _members(admin)])
    eventually(lambda: admin.get("/members").json()["members"][0]["trust"] == 0.9)
    assert state(admin) == becomes, "what its source says of it changes nothing"
    back = order(admin, "members/executor-1/restore")
    assert (back.status_code, back.json()["state"], back.json()["why"]) == (200, "ready", "")
    assert send(gateway) == {'"executor-1"', '"executor-2"'}
    assert f"operator token from 127.0.0.1: {what} executor-1: it is {becomes}" in gateway.log()


def _members(admin: httpx.Client) -> list[dict[str, object]]:
    return [
        {name: each[name] for name in ("name", "address", "capabilities")}
        for each in admin.get("/members").json()["members"]
    ]


def test_a_conversation_stays_at_a_member_that_is_drained(gateway: RunningGateway, admin: httpx.Client) -> None:
    (home,) = send(gateway, 1, conversation="c")
    name = home.strip('"')
    assert order(admin, f"members/{name}/drain").status_code == 200
    assert send(gateway, 3, conversation="c") == {home}
    other = "executor-2" if name == "executor-1" else "executor-1"
    assert order(admin, f"members/{other}/eject").status_code == 200
    assert send(gateway, 3) == {"503"}, "new work goes nowhere"
    assert send(gateway, 3, conversation="c") == {home}


def test_what_cannot_be_done_is_told(gateway: RunningGateway, admin: httpx.Client) -> None:
    for path, status, why in (
        ("members/nobody/drain", 404, "no member is called nobody"),
        ("members/nobody/restore", 404, "no member is called nobody"),
        ("members/executor-1/restore", 409, "no operator has changed executor-1: its source has it ready"),
        ("members/executor-1/destroy", 404, "expected one of drain, eject, retire, restore"),
    ):
        answer = order(admin, path)
        assert answer.status_code == status, path
        assert answer.json()["why"].startswith(why)
    write_agents(gateway.folder, [{**each, "state": "draining"} for each in _members(admin)])
    eventually(lambda: state(admin) == "draining")
    answer = order(admin, "members/executor-1/drain")
    assert (answer.status_code, answer.json()["why"]) == (409, "its source has executor-1 draining already")
    assert order(admin, "members/executor-1/retire").json()["state"] == "retired"
    assert order(admin, "members/executor-1/restore").json()["state"] == "draining"


def test_a_member_that_went_away_can_be_restored(gateway: RunningGateway, admin: httpx.Client) -> None:
    members = _members(admin)
    order(admin, "members/executor-1/eject")
    write_agents(gateway.folder, members[1:])
    eventually(lambda: len(admin.get("/members").json()["members"]) == 1)
    write_agents(gateway.folder, members)
    eventually(lambda: len(admin.get("/members").json()["members"]) == 2)
    assert state(admin) == "ejected"
    write_agents(gateway.folder, members[1:])
    eventually(lambda: len(admin.get("/members").json()["members"]) == 1)
    assert order(admin, "members/executor-1/restore").json() == {"name": "executor-1", "state": None}


def test_reload_answers_when_the_set_is_in_force_or_refused(gateway: RunningGateway, admin: httpx.Client) -> None:
    before = admin.get("/status").json()["revision"]
    write_policy(gateway.folder, "more", {**POLICY, "metadata": {"name": "more"}})
    answer = order(admin, "reload")
    assert (answer.status_code, answer.json()["revision"] != before) == (200, True)
    assert admin.get("/status").json()["revision"] == answer.json()["revision"]
    write_policy(gateway.folder, "more", "nonsense")
    refused = order(admin, "reload")
    assert refused.status_code == 409
    assert "more.yaml:1:1" in refused.json()["problems"][0]
    assert admin.get("/status").json()["last_refused"]["problems"] == refused.json()["problems"]
    assert "operator token from 127.0.0.1: reload: refused" in gateway.log()


def agent(name: str, state: AgentState = AgentState.READY) -> Agent:
    return Agent(name, "127.0.0.1", 1, frozenset({"x"}), state=state)


@given(st.sampled_from(AgentState), st.sampled_from(AgentState))
def test_an_order_never_makes_a_member_more_available_than_its_source_has_it(
    sourced: AgentState, ordered: AgentState
) -> None:
    overrides = Overrides(lambda: None)
    overrides.put("a", Override(ordered, "me", AT))
    (a, b) = overrides.overlay([agent("a", sourced), agent("b")])
    order_of = list(AgentState)
    assert order_of.index(a.state) == max(order_of.index(sourced), order_of.index(ordered))
    assert b.state is AgentState.READY


def test_what_did_not_change_is_the_same_object_and_overrides_are_bounded() -> None:
    changes: list[None] = []
    overrides = Overrides(lambda: changes.append(None))
    one = agent("a")
    assert overrides.overlay([one]) == (one,)
    overrides.put("a", Override(AgentState.DRAINING, "me", AT))
    (first,), (again,) = overrides.overlay([one]), overrides.overlay([one])
    assert first is again
    assert overrides.take_back("a")
    assert not overrides.take_back("a")
    assert overrides.overlay([one])[0] is one
    assert len(changes) == 2
    for number in range(MAX_OVERRIDES):
        overrides.put(f"m{number}", Override(AgentState.RETIRED, "me", AT))
    with pytest.raises(OverrideError, match="1,000 members are overridden already"):
        overrides.put("one-more", Override(AgentState.RETIRED, "me", AT))
    overrides.put("m0", Override(AgentState.EJECTED, "me", AT))
