"""A conversation is shown as the tree that its packets make, with what is still under way."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.conversations import MAX_SHOWN, amounts, whole
from gateway.admin.forest import MAX_DEPTH, Node, forest
from gateway.handoff import Handoff, Outcome
from gateway.recorder.compose import record_of
from gateway.telemetry.recent import Recent
from tests.admin.operators import held, operator, packet, with_token
from tests.conftest import RawAgent, RunningGateway, StartGateway, member
from tests.recorder.making import decided
from tests.waiting import eventually

TIME = datetime(2026, 11, 24, 12, tzinfo=UTC)


def ids(nodes: list[dict[str, Any]]) -> list[Any]:
    """A forest as ids: each with its children in a list after it."""
    return [
        part for each in nodes for part in (each["flight_id"], *([ids(each["children"])] if each["children"] else []))
    ]


def test_a_conversation_is_a_tree_with_what_each_hop_was_allowed(running: RunningGateway, admin: httpx.Client) -> None:
    with running.client() as client:
        for name, parent in (("a", None), ("b", "a"), ("c", "b"), ("d", "a"), ("e", "unknown")):
            fields = {"parent": parent} if parent else {}
            head = packet(name, conversation="talk/1", task="job", budget="tokens=10, hops=3", timeout="5000", **fields)
            assert client.post("/run", headers=head).status_code == 200
    with running.client("mallory") as client:
        client.post("/run", headers=packet("f", conversation="talk/1", parent="c"))
    told = admin.get("/conversations/talk%2F1").json()
    assert (told["id"], told["kind"], told["source"], told["more"]) == ("talk/1", "conversation", "memory", False)
    assert ids(told["handoffs"]) == ["a", ["b", ["c", ["f"]], "d"], "e"]
    first = told["handoffs"][0]
    assert first["allowed"] == {
        "policy": "test", "rule": "agents", "budget": {"tokens": 10, "hops": 3}, "hops": 3, "timeout_ms": 5000
    }  # fmt: skip
    assert (first["outcome"], first["agent"] in ("executor-1", "reviewer-1")) == ("completed", True)
    assert ids(admin.get("/tasks/job").json()["handoffs"]) == ["a", ["b", ["c"], "d"], "e"]
    (listed,) = [each for each in admin.get("/conversations").json()["conversations"] if each["id"] == "talk/1"]
    assert listed["first"] < listed["last"]
    assert {name: listed[name] for name in ("handoffs", "refused", "open", "capabilities")} == {
        "handoffs": 6, "refused": 1, "open": 0, "capabilities": ["code.execute"]
    }  # fmt: skip


def test_what_nobody_knows_is_not_found(admin: httpx.Client) -> None:
    for path in ("/conversations/none", "/tasks/none"):
        assert admin.get(path).status_code == 404
    assert admin.get("/conversations?limit=0").status_code == 400


def test_a_conversation_under_way_shows_what_is_open(raw_agent, start_gateway: StartGateway, tmp_path: Path) -> None:
    release = threading.Event()
    gateway = start_gateway([member(raw_agent(held(release)).port)], admin_spec=with_token(tmp_path))
    with operator(gateway) as admin, gateway.client() as client, ThreadPoolExecutor(1) as pool:
        try:
            answer = pool.submit(client.post, "/run", headers=packet("open-1", conversation="c", budget="tokens=7"))
            (listed,) = eventually(lambda: admin.get("/conversations").json()["conversations"])
            assert (listed["id"], listed["handoffs"], listed["open"]) == ("c", 0, 1)
            (node,) = admin.get("/conversations/c").json()["handoffs"]
            assert (node["flight_id"], node["outcome"], node["agent"]) == ("open-1", "open", "executor-1")
            assert node["allowed"]["budget"] == {"tokens": 7}
            assert admin.get("/members").json()["members"][0]["in_flight"] == 1
        finally:
            release.set()
        assert answer.result().status_code == 200
        (node,) = admin.get("/conversations/c").json()["handoffs"]
        assert (node["flight_id"], node["outcome"]) == ("open-1", "completed")


def test_the_recorder_tells_of_what_memory_has_forgotten(
    raw_agent, start_gateway: StartGateway, tmp_path: Path
) -> None:
    spec = {"admin_spec": with_token(tmp_path), "recorder": {"folder": str(tmp_path / "records")}}
    gateway = start_gateway([member(raw_agent(spending).port)], **spec)
    with gateway.client() as client:
        for name, parent in (("a", {}), ("b", {"parent": "a"})):
            head = packet(name, conversation="c", task="t", budget="tokens=9, hops=4", timeout="9000", **parent)
            assert client.post("/run", headers=head).status_code == 200
    assert gateway.stop() == 0
    gateway.start_again()
    with gateway.client() as client:
        assert client.post("/run", headers=packet("d", conversation="c", parent="b")).status_code == 200
    with operator(gateway) as admin:
        told = admin.get("/conversations/c").json()
        assert (told["source"], ids(told["handoffs"])) == ("recorder", ["a", ["b", ["d"]]])
        (first,) = told["handoffs"]
        assert first["allowed"] == {
            "policy": "test", "rule": "agents", "budget": {"tokens": 9, "hops": 4}, "hops": 4, "timeout_ms": 9000
        }  # fmt: skip
        assert first["spent"] == first["children"][0]["children"][0]["spent"] == {"tokens": 5}
        assert ids(admin.get("/tasks/t").json()["handoffs"]) == ["a", ["b"]]
        for path in (tmp_path / "records").rglob("*"):
            if path.is_file() and "seg" in path.name:
                path.write_bytes(path.read_bytes().replace(b'"outcome":"completed"', b'"outcome":"perfected"'))
        broken = admin.get("/conversations/c")
        assert (broken.status_code, "cannot be read" in broken.json()["why"]) == (503, True)


def spending(agent: RawAgent, connection: Any) -> None:
    while True:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nflight-usage: tokens=5\r\n\r\nok")


def test_what_is_shown_of_a_conversation_is_bounded_and_memory_knows_best_what_is_open() -> None:
    decision = decided()

    def of(at: int, outcome: Outcome = Outcome.COMPLETED) -> Handoff:
        return Handoff(TIME + timedelta(seconds=at), outcome, f"p{at}", "c", parent=f"p{at - 1}")

    found = whole("conversation", "c", None, Recent(), [(of(at), decision) for at in range(MAX_SHOWN + 5)])
    assert found.more
    assert sum(1 for _ in walk(found.handoffs)) == MAX_SHOWN
    recent = Recent()
    recent.add(record_of(of(0), decision))
    recent.add(record_of(msgspec.structs.replace(of(1), conversation="another"), decision))
    (node,) = whole("conversation", "c", None, recent, [(of(0, Outcome.OPEN), decision)]).handoffs
    assert node["outcome"] == "completed"


@pytest.mark.parametrize(
    ("text", "found"),
    [("tokens=812, usd=1.5, hops=2", {"tokens": 812, "hops": 2}), ("", {}), ("812 tokens", {}), ("\xff=1", {})],
)
def test_of_what_an_agent_says_it_spent_whole_numbers_count(text: str, found: dict[str, int]) -> None:
    assert amounts(text) == found


NAMES = st.sampled_from(["", "a", "b", "c", "d", "e"])


def node(at: int, flight_id: str, parent: str) -> Node:
    return {"time": f"2026-11-24T12:00:00.{at:06}Z", "number": at, "flight_id": flight_id, "parent": parent}


def walk(nodes: list[Node], depth: int = 1) -> Iterator[tuple[Node, int]]:
    for each in nodes:
        yield each, depth
        yield from walk(each["children"], depth + 1)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=40), st.randoms())
def test_whatever_parents_packets_name_each_is_in_the_forest_once(packets: list[tuple[str, str]], random: Any) -> None:
    nodes = [node(at, flight_id, parent) for at, (flight_id, parent) in enumerate(packets)]
    random.shuffle(nodes)
    grown = forest(nodes)
    assert sorted(each["number"] for each, _ in walk(grown)) == list(range(len(packets)))
    for each, _ in walk(grown):
        for before, after in itertools.pairwise(each["children"]):
            assert before["number"] < after["number"]
        for child in each["children"]:
            assert child["parent"] == each["flight_id"]
            assert each["number"] < child["number"], "a child began after its parent: there are no circles"
    for root in grown:
        earlier = {flight_id for flight_id, _ in packets[: root["number"]] if flight_id}
        assert root["parent"] not in earlier


def test_a_chain_without_an_end_is_no_tree_without_a_bottom() -> None:
    chain = [node(at, f"p{at}", f"p{at - 1}" if at else "") for at in range(5 * MAX_DEPTH)]
    depths = [depth for _, depth in walk(forest(chain))]
    assert (len(depths), max(depths)) == (5 * MAX_DEPTH, MAX_DEPTH + 1)


def test_a_time_without_a_fraction_comes_before_one_with() -> None:
    late = {"time": "2026-11-24T12:00:00.5Z", "flight_id": "b"}
    early = {"time": "2026-11-24T12:00:00Z", "flight_id": "a"}
    assert ids(forest([late, early])) == ["a", "b"]
