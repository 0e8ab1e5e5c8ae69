"""Every agent is replaced, one after the other, while conversations go on: no stream is cut, and none is moved."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import httpx
import pytest

from tests.conftest import CAPABILITY, RunningGateway, StartGateway, write_policy
from tests.fleet import Worker, numbers, start, stop
from tests.fleet.callers import Callers, callers
from tests.fleet.registered import STEPS
from tests.waiting import eventually

AGENTS = 6
CONVERSATIONS = 24
IDLE_S = 0.3
PAUSE_S = 3 * IDLE_S
"""From the end of a stream to the next packet of its conversation, whose lease is over by then."""
MEMBERSHIP = {
    "apiVersion": "phoenixflight.io/v1",
    "kind": "MembershipPolicy",
    "metadata": {"name": "executors"},
    "spec": {
        "rules": [
            {
                "name": "executors",
                "from": ["spiffe://mesh.local/ns/agents/sa/executor"],
                "names": ["executor-*"],
                "capabilities": ["code.execute"],
                "maxTrust": 1.0,
            }
        ]
    },
}


@dataclass
class Episode:
    """A stream, and the packets of its conversation that came while it was open."""

    conversation: str
    leaving: str
    """The agent that was draining, or gone, when it began."""
    agents: list[str] = field(default_factory=list)
    """Where the stream was, then the packets."""
    statuses: set[int] = field(default_factory=set)
    events: list[str] = field(default_factory=list)


class Roll:
    """The fleet as it is replaced."""

    def __init__(self) -> None:
        self.leaving = ""
        """Who is known to the gateway to drain, until its successor joins."""
        self.over = asyncio.Event()
        self.episodes: list[Episode] = []

    async def replace(self, old: Worker, new: Worker, calling: Callers) -> None:
        """One agent goes and another process takes its name."""
        new.spawn()
        old.leave()
        await calling.until(lambda members: members[old.name]["state"] == "draining")
        self.leaving = old.name
        assert await asyncio.to_thread(old.ended) == 0
        assert old.name not in await calling.members()
        self.leaving = ""
        await asyncio.to_thread(new.wait)
        await asyncio.to_thread(new.join)
        await calling.until(lambda members: members.get(old.name, {}).get("state") == "ready")

    async def converse(self, client: httpx.AsyncClient, number: int) -> None:
        """One stream after the other; half of the callers keep their conversation, the others begin new ones."""
        rng = random.Random(number)
        await asyncio.sleep(PAUSE_S * rng.random())
        while not self.over.is_set():
            name = f"c-{number}" if number % 2 else f"c-{number}-{len(self.episodes)}"
            episode = Episode(name, self.leaving)
            self.episodes.append(episode)
            await run_episode(client, episode)
            await asyncio.sleep(PAUSE_S)


async def run_episode(client: httpx.AsyncClient, episode: Episode) -> None:
    """Open a stream, send what the agent waits for, and read to the end."""
    headers = {**CAPABILITY, "flight-conversation": f'"{episode.conversation}"'}

    def note(answer: httpx.Response) -> None:
        episode.statuses.add(answer.status_code)
        episode.agents.append(answer.headers.get("flight-agent", "").strip('"'))

    async with client.stream("GET", "/events", headers=headers) as stream:
        note(stream)
        async for line in stream.aiter_lines():
            if not line:
                continue
            episode.events.append(line.removeprefix("data: "))
            if len(episode.events) % 4 == 0 and len(episode.agents) <= STEPS:
                note(await client.post("/step", headers=headers))


@pytest.fixture
def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway whose members are those that register."""
    gateway = start_gateway([], leases={"idle": f"{IDLE_S * 1000:.0f}ms"})
    before = gateway.revision()
    write_policy(gateway.folder, "members", MEMBERSHIP)
    eventually(lambda: gateway.revision() != before)
    return gateway


@pytest.fixture
def workers(gateway: RunningGateway, certs: Path, tmp_path: Path) -> Iterator[list[Worker]]:
    """The agents, which run, and behind each its successor, which does not yet."""
    tls = {"certificate": f"{certs}/executor.pem", "key": f"{certs}/executor-key.pem", "ca": f"{certs}/ca.pem"}
    made = [
        Worker(
            folder,
            f"executor-{number}",
            settings={"gateway": gateway.url, "tls": tls},
            module="tests.fleet.registered",
        )
        for number in range(1, AGENTS + 1)
        for folder in (tmp_path / "old", tmp_path / "new")
    ]
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    try:
        start(made[::2])
        yield made
    finally:
        stop(made)


@pytest.mark.slow
async def test_a_rolling_restart_cuts_no_stream_and_moves_no_conversation(
    gateway: RunningGateway, workers: list[Worker]
) -> None:
    old, new = workers[::2], workers[1::2]
    for worker in old:
        await asyncio.to_thread(worker.join)
    roll = Roll()
    async with callers(gateway, ["GET"]) as calling, asyncio.TaskGroup() as tasks:
        await calling.until(lambda members: [each["state"] for each in members.values()] == ["ready"] * AGENTS)
        for number in range(CONVERSATIONS):
            tasks.create_task(roll.converse(calling.clients[number // 2 % 2], number))
        await asyncio.sleep(1)
        for leaver, successor in zip(old, new, strict=True):
            await roll.replace(leaver, successor, calling)
        # New conversations begin all the time: each of the new agents has its share of them soon.
        await asyncio.to_thread(eventually, lambda: all(worker.read() for worker in new))
        roll.over.set()
    for episode in roll.episodes:
        assert episode.statuses == {200}, episode
        assert len(episode.agents) == 1 + STEPS, episode
        assert len(set(episode.agents)) == 1, "a conversation stays where it is while its lease lives"
        assert episode.events[-1] == "done", "a stream ends when its agent ends it"
        assert episode.events[:-1] == [str(number) for number in range(len(episode.events) - 1)]
        assert episode.agents[0] != episode.leaving, "nothing new begins at an agent that drains"
    check_fates(gateway, roll.episodes)


def check_fates(gateway: RunningGateway, episodes: list[Episode]) -> None:
    """What the gateway counted is what was seen."""
    exposition = gateway.admin("/metrics").text
    fates = numbers(exposition, "phoenixflight_conversation_packets_total")
    new, same, kept, held, moved, forced = (
        fates[f'fate="{fate}"'] for fate in ("new", "same", "kept", "held", "moved", "forced")
    )
    conversations = {episode.conversation: [] for episode in episodes}
    for episode in episodes:
        conversations[episode.conversation].append(episode.agents[0])
    changes = sum(len(list(groupby(agents))) - 1 for agents in conversations.values())
    assert new == len(conversations)
    assert moved + forced == changes, "only those whose lease was over have moved"
    assert moved > 0, "some went back to the one who is there again"
    assert forced > 0, "some were at an agent that left"
    assert kept > 0, "some were at an agent that the ring would not choose any more"
    assert held == 0
    assert new + same + kept + moved + forced == (1 + STEPS) * len(episodes)
    outcomes = numbers(exposition, "phoenixflight_registrations_total")
    assert outcomes['method="PUT",outcome="created"'] == 2 * AGENTS
    handoffs = numbers(exposition, "phoenixflight_handoffs_total")
    assert all('outcome="completed"' in labels for labels in handoffs)
    assert numbers(exposition, "phoenixflight_defects_total") == {"": 0}
