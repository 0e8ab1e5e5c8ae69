"""Two gateways with one Redis: whichever is asked, a conversation is at the same agent."""

from __future__ import annotations

import asyncio
import random
import re
import ssl
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.conftest import POLICY, RunningGateway, StartGateway, member, write_agents, write_policy
from tests.membership.registering import RULE, soon
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

CONVERSATIONS = range(10_000)
CONNECTIONS = 12
"""To each gateway."""
APART = 300
"""Packets between the one gateway's change of members and the other's."""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_HEAD = b'GET /run HTTP/1.1\r\nhost: gateway\r\nflight-capability: %s\r\nflight-conversation: "c-%d"\r\n\r\n'
_AGENT = re.compile(rb'\r\nflight-agent: "([^"]+)"\r\n')


class Instant(asyncio.Protocol):
    """An agent that answers every head at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(OK * data.count(b"\r\n\r\n"))  # type: ignore[attr-defined]


class Caller(asyncio.Protocol):
    """One connection to a gateway: a packet at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"\r\n\r\n"):
            self.answer.set_result(self.received)
            self.received = b""

    def connection_lost(self, _: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError("the gateway closed the connection"))

    async def ask(self, conversation: int, capability: str = "code.execute") -> str:
        """Send a packet; gives the agent that answered."""
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        head = _HEAD % (capability.encode(), conversation)
        self.transport.write(head)  # type: ignore[attr-defined]
        answer = await self.answer
        found = _AGENT.search(answer)
        assert found is not None, answer
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return found[1].decode()


class Replica:
    """A gateway, its callers, and what they were told."""

    def __init__(self, gateway: RunningGateway, seed: int) -> None:
        self.gateway = gateway
        self.callers: list[Caller] = []
        self.told: dict[int, list[str]] = defaultdict(list)
        """The agents that answered, by conversation, since the last `Mesh.answers`."""
        self.asked = 0
        self._random = random.Random(seed)
        self._marks: list[tuple[int, asyncio.Event]] = []

    async def packets(self, conversations: Iterable[int]) -> None:
        """A packet of each, in an order of its own."""
        left = list(conversations)
        self._random.shuffle(left)

        async def some(caller: Caller) -> None:
            while left:
                conversation = left.pop()
                self.told[conversation].append(await caller.ask(conversation))
                self.asked += 1
                for number, mark in self._marks:
                    if self.asked >= number:
                        mark.set()

        await asyncio.gather(*map(some, self.callers))

    async def reached(self, count: int) -> None:
        """Wait until so many packets were answered in all."""
        if self.asked < count:
            mark = asyncio.Event()
            self._marks.append((count, mark))
            await mark.wait()

    def members(self) -> dict[str, str]:
        """State by name."""
        return {agent["name"]: agent["state"] for agent in self.gateway.admin("/snapshot").json()["agents"]}

    def by_the_ring(self) -> int:
        """Packets that had no answer about their lease in time."""
        fates = re.findall(r"conversation_packets_total\{.+\} (\d+)", self.gateway.admin("/metrics").text)
        return self.asked - sum(map(int, fates))

    def leases(self) -> str:
        return str(self.gateway.admin("/status").json()["shared_leases"])


class Mesh:
    """Two replicas, and agents in this process."""

    def __init__(self, replicas: tuple[Replica, Replica], ports: dict[str, int]) -> None:
        self.replicas = replicas
        self.ports = ports

    def agents(self, *names: str, draining: str = "") -> list[dict[str, Any]]:
        return [
            member(self.ports[name], name, state="draining" if name == draining else "ready") for name in sorted(names)
        ]

    async def both(self, conversations: Iterable[int]) -> None:
        """A packet of each conversation through each of the two."""
        wanted = list(conversations)
        await asyncio.gather(*(replica.packets(wanted) for replica in self.replicas))

    async def change(self, agents: list[dict[str, Any]], asked: int) -> None:
        """Change the members of the one once `asked` packets were answered, of the other a little later."""
        first, second = self.replicas
        await first.reached(asked)
        write_agents(first.gateway.folder, agents)
        await first.reached(asked + APART)
        write_agents(second.gateway.folder, agents)
        known = {agent["name"]: agent["state"] for agent in agents}
        await soon(lambda: [replica.members() for replica in self.replicas] == [known, known])

    def answers(self) -> dict[int, list[str]]:
        """What both were told, by conversation; they forget it."""
        told: dict[int, list[str]] = defaultdict(list)
        for replica in self.replicas:
            for conversation, agents in replica.told.items():
                told[conversation] += agents
            replica.told.clear()
        return told

    def amiss(self, conversations: list[int]) -> bool:
        """Whether these are more than the packets that had to do without a lease, as when Redis is late."""
        return len(conversations) > sum(replica.by_the_ring() for replica in self.replicas)


@asynccontextmanager
async def meshed(start: Callable[[], RunningGateway], ports: dict[str, int]) -> AsyncIterator[Mesh]:
    loop = asyncio.get_running_loop()
    replicas = [Replica(await asyncio.to_thread(start), seed) for seed in (1, 2)]
    for replica in replicas:
        for _ in range(CONNECTIONS):
            _, caller = await loop.create_connection(Caller, "127.0.0.1", replica.gateway.plain_port)
            replica.callers.append(caller)
    yield Mesh((replicas[0], replicas[1]), ports)
    for replica in replicas:
        for caller in replica.callers:
            caller.transport.close()


@pytest.fixture
async def mesh(start_gateway: StartGateway, redis: RedisServer) -> AsyncIterator[Mesh]:
    """Four agents of five are members."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        ports: dict[str, int] = {}
        for name in ("a", "b", "c", "d", "joiner"):
            server = await stack.enter_async_context(await loop.create_server(Instant, "127.0.0.1", 0))
            ports[name] = server.sockets[0].getsockname()[1]
        agents = [member(ports[name], name) for name in "abcd"]

        def start() -> RunningGateway:
            return start_gateway(
                agents, redis={"url": redis.url}, telemetry={"accessLog": "none"}, leases={"movesPerSecond": 1e6}
            )

        yield await stack.enter_async_context(meshed(start, ports))


def let_be_idle(redis: RedisServer, owner: str) -> None:
    """Let the leases of `owner` be as old as idle ones."""
    with Redis.from_url(redis.url) as store:
        keys = list(store.scan_iter(b"phoenixflight:lease:*", count=1000))
        reading = store.pipeline(transaction=False)
        for key in keys:
            reading.hget(key, "owner")
        writing = store.pipeline(transaction=False)
        for key, found in zip(keys, reading.execute(), strict=True):
            if found.decode() == owner:
                writing.hincrby(key, "at", -400_000)
        writing.execute()


def at_agent(owners: dict[int, str], agent: str) -> list[int]:
    return [conversation for conversation, owner in owners.items() if owner == agent]


async def test_both_have_the_same_owner_for_ten_thousand_conversations_while_members_come_and_go(
    mesh: Mesh, redis: RedisServer
) -> None:
    first, second = mesh.replicas
    half = len(CONVERSATIONS) // 2
    await asyncio.gather(first.packets(CONVERSATIONS[:half]), second.packets(CONVERSATIONS[half:]))
    owners = {conversation: agents[0] for conversation, agents in mesh.answers().items()}
    assert set(owners.values()) == {"a", "b", "c", "d"}

    async def changes() -> None:
        begun = first.asked
        await mesh.change(mesh.agents("a", "b", "c", "d", "joiner"), begun + 500)
        await mesh.change(mesh.agents("a", "b", "c", "d", "joiner", draining="d"), begun + 3500)
        await mesh.change(mesh.agents("b", "c", "d", "joiner", draining="d"), begun + 6500)

    await asyncio.gather(mesh.both(CONVERSATIONS), changes())
    meanwhile = mesh.answers()
    strayed = [each for each, owner in owners.items() if owner != "a" and set(meanwhile[each]) != {owner}]
    assert not mesh.amiss(strayed), f"{len(strayed)} conversations were at another agent than their owner"

    left = at_agent(owners, "a")
    await mesh.both(left)
    settled = mesh.answers()
    apart = [each for each in left if len(set(settled[each])) > 1 or not set(meanwhile[each]) <= {"a", *settled[each]}]
    assert not mesh.amiss(apart), f"{len(apart)} conversations had more than one new owner"
    assert not {"a", "d"} & {agent for agents in settled.values() for agent in agents}

    drained = at_agent(owners, "d")
    await asyncio.to_thread(let_be_idle, redis, "d")
    await mesh.both(drained)
    settled = mesh.answers()
    apart = [each for each in drained if len(set(settled[each])) > 1]
    assert not mesh.amiss(apart), f"{len(apart)} conversations had more than one new owner"
    assert not {"a", "d"} & {agent for agents in settled.values() for agent in agents}


async def test_without_redis_both_go_by_the_same_ring_and_with_it_again_by_leases(
    mesh: Mesh, redis: RedisServer
) -> None:
    """Packets come one at a time: then the load of the agents has no say."""
    replicas, some = mesh.replicas, range(60)
    for replica in replicas:
        del replica.callers[1:]

    async def owners(replica: Replica) -> list[str]:
        return [await replica.callers[0].ask(conversation) for conversation in some]

    began = await owners(replicas[0])
    assert await owners(replicas[1]) == began
    await asyncio.to_thread(redis.stop)
    for replica in replicas:
        assert await owners(replica) == began
        assert replica.leases() != "ok"
    agents = mesh.agents("a", "b", "c", "joiner")
    for replica in replicas:
        write_agents(replica.gateway.folder, agents)
    await soon(lambda: all("joiner" in replica.members() for replica in replicas))
    alone = await owners(replicas[0])
    assert await owners(replicas[1]) == alone
    assert "d" in began
    assert "joiner" in alone
    moved = [(before, after) for before, after in zip(began, alone, strict=True) if before != after]
    assert all(before == "d" or after == "joiner" for before, after in moved)
    await asyncio.to_thread(redis.start)
    # Where the ring puts a conversation is where its new lease has it.
    assert await owners(replicas[0]) == alone
    write_agents(replicas[1].gateway.folder, mesh.agents("a", "b", "c", "d"))
    await soon(lambda: "d" in replicas[1].members())
    again = await owners(replicas[1])
    assert all(before == after or before == "joiner" for before, after in zip(alone, again, strict=True))
    assert [replica.leases() for replica in replicas] == ["ok", "ok"]


async def test_an_agent_that_registers_at_one_serves_at_the_other_within_a_second(mesh: Mesh, certs: Path) -> None:
    here, there = mesh.replicas
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certs / "ca.pem")
    context.load_cert_chain(certs / "executor.pem", certs / "executor-key.pem")
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0, ssl=context)
    policy = {**POLICY, "kind": "MembershipPolicy", "spec": {"rules": [RULE]}}
    for replica in mesh.replicas:
        revision = replica.gateway.revision()
        write_policy(replica.gateway.folder, "members", policy)
        await soon(lambda replica=replica, revision=revision: replica.gateway.revision() != revision)
    async with server:
        body = {"address": f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "capabilities": ["code.compile"]}

        def register() -> int:
            with here.gateway.client("executor") as client:
                return client.put("/members/executor-1", json=body).status_code

        assert await asyncio.to_thread(register) == 201
        registered_at = time.monotonic()
        await soon(lambda: "executor-1" in there.members())
        assert await there.callers[0].ask(1, "code.compile") == "executor-1"
        assert time.monotonic() - registered_at < 1
        assert await here.callers[0].ask(1, "code.compile") == "executor-1"
