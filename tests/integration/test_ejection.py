"""An agent dies in the middle of its work: what was to come is done by others, and it comes back slowly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from tests.conftest import RunningGateway, StartGateway
from tests.fleet import Worker, numbers, start, stop
from tests.fleet.callers import Call, Callers, callers

VICTIM = "executor-2"
IDEMPOTENT = {"GET", "PUT"}


@pytest.fixture
def workers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Worker]]:
    """Four agents, each taking 50 ms for a packet, so that some are always under way."""
    protocol = getattr(request, "param", "http/1.1")
    made = [Worker(tmp_path, f"executor-{number}", protocol, {"delay_s": 0.05}) for number in range(1, 5)]
    try:
        start(made)
        yield made
    finally:
        stop(made)


def victim(workers: list[Worker]) -> Worker:
    return next(worker for worker in workers if worker.name == VICTIM)


async def until_state(calling: Callers, state: str) -> float:
    """Wait for the victim to be in `state`; gives when that was."""
    await calling.until(lambda members: members[VICTIM]["state"] == state)
    return time.time()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["http/1.1", "h2c"], indirect=True)
async def test_an_agent_killed_under_load_costs_at_most_the_posts_that_it_had(
    workers: list[Worker], start_gateway: StartGateway
) -> None:
    gateway = await asyncio.to_thread(start_gateway, [worker.member for worker in workers])
    stopped = asyncio.Event()
    conversations = [f"c-{number}" for number in range(40)]
    async with callers(gateway, ["GET", "PUT", "POST"]) as calling, asyncio.TaskGroup() as tasks:
        # 200 a second: 120 on their own, 80 of conversations.
        tasks.create_task(calling.lone(120, stopped))
        for conversation in conversations:
            tasks.create_task(calling.converse(conversation, 0.45, stopped))
        await asyncio.sleep(1.5)
        await asyncio.to_thread(victim(workers).kill)
        killed_at = time.time()
        ejected_at = await until_state(calling, "ejected")
        # It is there again at once, yet nothing is sent to it for as long as it is out.
        victim(workers).spawn()
        await asyncio.sleep(2.5)
        assert (await calling.members())[VICTIM]["state"] == "ejected"
        stopped.set()
    assert ejected_at - killed_at < 1 + calling.late_s
    assert victim(workers).read(start=2) == []
    check_packets(calling, workers, gateway, ejected_at)
    moved = [check_conversation(calling.of(conversation)) for conversation in conversations]
    assert any(moved)
    exposition = gateway.admin("/metrics").text
    assert numbers(exposition, "phoenixflight_ejections_total")['reason="consecutive-failures"'] == 1
    assert numbers(exposition, "phoenixflight_defects_total") == {"": 0}


def check_packets(calling: Callers, workers: list[Worker], gateway: RunningGateway, ejected_at: float) -> None:
    failed = [call for call in calling.calls if call.status != 200]
    assert [call for call in failed if call.method in IDEMPOTENT] == []
    agents = {handoff["flight_id"]: handoff.get("agent") for handoff in gateway.handoffs()}
    for call in failed:
        assert (call.status, "urn:phoenixflight:upstream-reset" in call.problem) == (502, True), call
        assert agents[call.id] == VICTIM
        assert call.began < ejected_at
    assert VICTIM not in {call.agent for call in calling.calls if call.began > ejected_at}
    again = [call for call in calling.calls if call.attempts > 1]
    assert again, "something was under way at the agent when it died"
    assert all(call.began < ejected_at for call in again)
    # What may not be done twice has reached one agent at most.
    posts = [read.packet for worker in workers for read in worker.read() if read.method == "POST"]
    assert len(posts) == len(set(posts))


def check_conversation(packets: list[Call]) -> bool:
    """A conversation moves once if its agent died, and else never; gives whether it has."""
    places = [agent for agent, _ in groupby(call.agent for call in packets)]
    assert len(places) <= (2 if places[:1] == [VICTIM] else 1), places
    return len(places) == 2


@pytest.mark.slow
async def test_an_agent_that_comes_back_is_given_more_and_more(
    workers: list[Worker], start_gateway: StartGateway
) -> None:
    health = {"outlier": {"baseEjection": "2s"}, "slowStart": {"duration": "6s"}}
    gateway = await asyncio.to_thread(start_gateway, [worker.member for worker in workers], health=health)
    stopped = asyncio.Event()
    shares: list[float] = []
    async with callers(gateway, ["GET"]) as calling, asyncio.TaskGroup() as tasks:
        tasks.create_task(calling.lone(100, stopped))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(victim(workers).kill)
        out_at = await until_state(calling, "ejected")
        victim(workers).spawn()
        back_at = await until_state(calling, "ready")
        async with asyncio.timeout(20):
            while not shares or shares[-1] < 1:
                shares.append((await calling.members())[VICTIM]["reliability"])
                await asyncio.sleep(0.05)
        whole_at = time.time()
        await asyncio.sleep(2)
        stopped.set()
    assert back_at - out_at > 1.5, "an ejection takes its time"
    assert {call.status for call in calling.calls} == {200}
    steps = list(dict.fromkeys(shares))
    assert steps == sorted(steps)
    assert len(steps) >= 3, steps
    assert steps[0] == 1 / 8
    growing = share_of_victim(calling, back_at, whole_at)
    whole = share_of_victim(calling, whole_at, time.time())
    assert 0 < growing < 0.8 * whole


def share_of_victim(calling: Callers, start: float, end: float) -> float:
    """Of the packets that were sent within a time."""
    agents = [call.agent for call in calling.calls if start <= call.began < end]
    return agents.count(VICTIM) / len(agents)
