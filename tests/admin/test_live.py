"""Handoffs are seen as they end, by as many as there is room for, at no cost to those who send them."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import httpx
import pytest

from gateway.admin.events import MAX_QUEUED
from gateway.admin.filters import Filter
from gateway.admin.live import MAX_READERS, Live, Now
from gateway.decision import Refuse
from gateway.handoff import Handoff, Outcome
from gateway.messages import RequestHead
from gateway.refusal import Reason, Refusal
from gateway.verdict import Decided
from tests.admin.operators import Watching, operator, packet
from tests.conftest import RunningGateway
from tests.waiting import eventually

HEAD = RequestHead(b"POST", b"https", b"mesh", b"/", [])
DECIDED = Decided(HEAD, None, Refuse(Refusal(Reason.NO_POLICY_ALLOWS, ""), None, b"", b""), "r1", 0.0)
TIME = datetime(2026, 11, 24, tzinfo=UTC)
_ids = itertools.count()


def send(gateway: RunningGateway, count: int = 1, name: str = "planner", **fields: str) -> list[str]:
    """Packets, each with an id of its own."""
    ids = [f"live-{next(_ids)}" for _ in range(count)]
    with gateway.client(name) as client:
        for flight_id in ids:
            client.post("/run", headers=packet(flight_id, **fields))
    return ids


def test_a_handoff_is_seen_within_a_second_and_the_state_each_second(
    running: RunningGateway, admin: httpx.Client
) -> None:
    with Watching(admin) as live:
        first = live.named("state")[0]
        assert (first["ready"], first["revision"], first["dropped"]) == (
            True,
            admin.get("/status").json()["revision"],
            0,
        )
        assert set(first) == {
            "time", "ready", "revision", "in_flight", "connections", "handoffs_per_s", "refused_per_s", "failed_per_s",
            "loop_lag_ms", "overload_level", "approvals", "dropped",
        }  # fmt: skip
        began = time.monotonic()
        sent = send(running, 3)
        eventually(lambda: live.ids == sent, 1.0)
        assert time.monotonic() - began < 1.0 + 1.0, "sending them took some of it"
        logged = running.handoff(flight_id=sent[0])
        assert live.named("handoff")[0] == logged, "it is what the access log has"
        states = eventually(lambda: len(live.named("state")) > 2 and live.named("state"))
        assert any(each["handoffs_per_s"] > 0 for each in states)
        gaps = [_at(after) - _at(before) for before, after in itertools.pairwise(states[1:])]
        assert all(0.5 < gap < 3 for gap in gaps), gaps


def _at(state: dict[str, str]) -> float:
    return datetime.fromisoformat(state["time"]).timestamp()


def test_a_stream_shows_what_was_asked_for(running: RunningGateway, admin: httpx.Client) -> None:
    query = "?from=SA/planner&capability=execute&outcome=completed&conversation=mine"
    with Watching(admin, query) as live, Watching(admin, "?outcome=refused") as refused:
        send(running, 1, conversation="other")
        mine = send(running, 2, conversation="mine")
        denied = send(running, 1, "mallory", conversation="mine")
        eventually(lambda: live.ids == mine)
        eventually(lambda: refused.ids == denied)
        assert refused.named("handoff")[0]["reason"] == "denied-by-policy"
    newest = admin.get("/handoffs?conversation=mine&limit=2").json()["handoffs"]
    assert [each["flight_id"] for each in newest] == [denied[0], mine[1]]
    assert [each["flight_id"] for each in admin.get(f"/handoffs{query}").json()["handoffs"]] == mine[::-1]


@pytest.mark.parametrize("query", ["outcome=done", "limit=0", "limit=1001", "limit=x", "limit=%C2%B2"])
def test_a_question_that_means_nothing_is_told_why(admin: httpx.Client, query: str) -> None:
    answer = admin.get(f"/handoffs?{query}")
    assert answer.status_code == 400
    assert answer.json()["why"].partition(" ")[0] == query.partition("=")[0]


def test_readers_that_leave_make_room_for_others(running: RunningGateway, admin: httpx.Client) -> None:
    with operator(running) as many:
        with ExitStack() as stack:
            for _ in range(MAX_READERS):
                answer = stack.enter_context(many.stream("GET", "/live"))
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
            late = admin.get("/live")
            assert (late.status_code, late.headers["retry-after"]) == (503, "5")
        assert admin.head("/live").headers["content-type"].startswith("text/event-stream")
        with Watching(admin) as live:
            assert live.named("state")


def watched() -> Live:
    return Live(lambda: Now(True, "r1", 1, 2, 0.003, 0, 0))


def handoff(number: int, outcome: Outcome = Outcome.COMPLETED, **fields: str) -> Handoff:
    return Handoff(TIME, outcome, f"p{number}", **fields)


async def test_a_reader_that_is_too_slow_misses_the_oldest_and_is_told_how_many() -> None:
    live = watched()
    reader = live.join(Filter())
    assert reader is not None
    for number in range(MAX_QUEUED + 7):
        live.add(handoff(number), DECIDED, b"")
    events = reader.events()
    text = (await anext(events) + await anext(events)).decode()
    assert text.startswith("retry: 2000\n\nevent: handoff\ndata: {")
    assert text.count("event: handoff") == MAX_QUEUED
    assert '"p6"' not in text
    assert '"p7"' in text
    assert text.endswith('"dropped":7}\n\n')


async def test_streams_end_with_the_gateway() -> None:
    live = watched()
    reader = live.join(Filter())
    assert reader is not None
    running = asyncio.create_task(live.run())
    live.add(handoff(1), DECIDED, b"")
    await asyncio.sleep(0)
    running.cancel()
    assert len([each async for each in reader.events()]) == 2


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, True),
        ({"capability": "EXEC"}, True),
        ({"capability": "review"}, False),
        ({"from": "sa/plan", "agent": "executor"}, True),
        ({"from": "sa/coder"}, False),
        ({"outcome": "completed", "task": "t", "conversation": "c"}, True),
        ({"outcome": "refused"}, False),
        ({"task": "T"}, False),
        ({"conversation": "c1"}, False),
        ({"limit": "1", "unknown": "x"}, True),
    ],
)
def test_a_filter_wants_parts_of_names_and_whole_ids(query: dict[str, str], wanted: bool) -> None:
    ended = handoff(
        1, caller="spiffe://mesh.local/ns/agents/sa/planner", capability="code.execute", agent="executor-1",
        conversation="c", task="t",
    )  # fmt: skip
    assert Filter.of(query).wants(ended) is wanted
