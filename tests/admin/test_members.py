"""Members, rings and rules are shown as they are."""

from __future__ import annotations

import itertools

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admin.members import MAX_ARCS, drawn
from gateway.decision import Snapshot
from gateway.policy import PolicySet
from gateway.routing import Agent, AgentState
from tests.admin.operators import ok, packet
from tests.conftest import POLICY, RunningGateway, StartGateway, member, write_policy
from tests.waiting import eventually, free_port


def test_members_are_shown_with_their_share_and_source(running: RunningGateway, admin: httpx.Client) -> None:
    executor, reviewer = admin.get("/members").json()["members"]
    assert executor.pop("address").startswith("127.0.0.1:")
    assert executor == {
        "name": "executor-1", "protocol": "http/1.1", "spiffe_id": None, "capabilities": ["code.execute"],
        "state": "ready", "why": "", "trust": 1.0, "reliability": 1.0, "weight": 1.0, "zone": "a", "in_flight": 0,
        "share": 0.666667, "source": "file",
    }  # fmt: skip
    assert (reviewer["weight"], reviewer["share"]) == (0.5, 0.333333)


def test_a_ring_is_drawn_as_pieces_of_a_circle(running: RunningGateway, admin: httpx.Client) -> None:
    told = admin.get("/ring?capability=code.execute").json()
    assert told["capability"] == "code.execute"
    assert [each["name"] for each in told["members"]] == ["executor-1", "reviewer-1"]
    whole(told["members"])
    (reviewer,) = admin.get("/ring?capability=code.execute,%20code.review").json()["members"]
    assert (reviewer["name"], reviewer["share"], reviewer["arcs"]) == ("reviewer-1", 1.0, [[0.0, 1.0]])
    assert admin.get("/ring?capability=none").status_code == 404


def whole(members: list[dict[str, object]]) -> None:
    """The pieces of all make the circle, and are about as long as the shares say."""
    arcs = sorted(tuple(arc) for each in members for arc in each["arcs"])
    assert arcs[0][0] == 0.0
    assert arcs[-1][1] == 1.0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(arcs))
    assert len(arcs) <= MAX_ARCS
    for each in members:
        length = sum(end - begin for begin, end in each["arcs"])
        assert length == pytest.approx(each["share"], abs=0.05)


@given(
    st.lists(st.tuples(st.sampled_from(AgentState), st.floats(0.01, 1)), min_size=1, max_size=6),
    st.sampled_from([1, 7, 64, 1024]),
)
@settings(max_examples=40, deadline=None)
def test_whoever_is_on_it_a_ring_is_whole_and_bounded(agents: list[tuple[AgentState, float]], points: int) -> None:
    members = tuple(
        Agent(f"a{number}", "127.0.0.1", 1, frozenset({"x"}), trust, state=state)
        for number, (state, trust) in enumerate(agents)
    )
    circle = drawn(Snapshot("r", PolicySet(()), members, points=points), frozenset({"x"}), {"a0": 3}, "x")
    assert [each.name for each in circle.members] == [each.name for each in members]
    assert circle.members[0].in_flight == 3
    ready = [each for each in circle.members if each.state == "ready"]
    assert all(not each.arcs and not each.share for each in circle.members if each.state != "ready")
    if ready:
        whole([{"share": each.share, "arcs": each.arcs} for each in ready])


def test_rules_are_shown_with_what_they_decided(raw_agent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(ok).port)])
    shadow = {
        **POLICY,
        "metadata": {"name": "stricter"},
        "spec": {
            "mode": "shadow",
            "capabilities": ["code.*"],
            "rules": [{"name": "nobody", "effect": "deny", "from": ["spiffe://mesh.local/ns/agents/**"]}],
        },
    }
    before = gateway.revision()
    write_policy(gateway.folder, "stricter", shadow)
    eventually(lambda: gateway.revision() != before)
    for name, count in (("planner", 3), ("mallory", 2)):
        with gateway.client(name) as client:
            for number in range(count):
                client.post("/run", headers=packet(f"{name}-{number}"))
    with gateway.client("gateway") as client:
        client.post("/run", headers=packet("nobody"))
    told = gateway.admin("/policies").json()
    stricter, test = told["policies"]
    assert stricter["mode"] == "shadow"
    assert stricter["file"].endswith("/policies/stricter.yaml")
    assert stricter["capabilities"] == ["code.*"]
    (nobody,) = stricter["rules"]
    last = nobody.pop("last_hit")
    assert nobody == {"name": "nobody", "effect": "deny", "hits": 0, "shadow_hits": 3}
    agents, quarantined = test["rules"]
    assert agents.pop("last_hit") == last
    assert agents == {"name": "agents", "effect": "allow", "hits": 3, "shadow_hits": 0}
    assert (quarantined["hits"], told["default_refusals"]) == (2, 1)


def test_a_member_that_health_ejected_says_why(start_gateway: StartGateway, raw_agent) -> None:
    dead = member(free_port(), "dead", healthCheck={"type": "tcp", "interval": "200ms", "timeout": "100ms"})
    gateway = start_gateway([member(raw_agent(ok).port), member(raw_agent(ok).port, "executor-2"), dead])

    def ejected() -> dict[str, object] | None:
        members = gateway.admin("/members").json()["members"]
        return next((each for each in members if each["name"] == "dead" and each["state"] == "ejected"), None)

    assert str(eventually(ejected)["why"]).startswith("ejected: unhealthy: ")
