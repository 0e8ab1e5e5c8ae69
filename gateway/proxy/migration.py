"""What a conversation's agent knows of it, carried to another agent when the conversation moves there.

The gateway asks the agent that drains for the context, checks it against its digest, and gives it to the other one.
Whatever comes of that is counted, and no packet is lost to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from gateway.decision import Route
from gateway.headers import field_value
from gateway.messages import Fields, RequestHead
from gateway.packet import FlightPacket, MalformedPacketError
from gateway.packet import fields as names
from gateway.packet.digest import digest_check
from gateway.proxy import errand
from gateway.proxy.upstream import Pool
from gateway.routing import Agent, AgentState

log = logging.getLogger(__name__)

MAX_CONTEXT_BYTES: Final = 1024 * 1024
TIMEOUT_S: Final = 2.0
"""For asking the one agent, its turn included; as much again for giving to the other."""
MAX_AT_ONCE: Final = 64
"""Conversations carried over at once; others stay where they are meanwhile."""
_CARRIED: Final = (names.CONTENT_TYPE, b"content-encoding")
"""With the digest, which is one of the content as it is encoded (RFC 9530 section 2)."""


class Outcome(Enum):
    """What came of carrying a conversation's context over."""

    CARRIED = "carried"
    """The new agent has taken it."""
    NOTHING = "nothing"
    """The agent before has none: 404."""
    NOT_GIVEN = "not-given"
    """The agent before gave none in time, gave too much, or refused."""
    MISMATCH = "mismatch"
    """It has no digest, or is not what its digest was made of."""
    NOT_TAKEN = "not-taken"
    """The new agent did not take it in time, or refused."""


class _Failure(Exception):
    """It was not carried over; the message says why."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


class _Context(NamedTuple):
    fields: Fields
    """What goes with it."""
    body: bytes


class Migrations:
    """Carries contexts over; owns the tasks that do."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pool: Callable[[Agent], Pool], on_defect: Callable[[], None]
    ) -> None:
        self.outcomes = dict.fromkeys(Outcome, 0)
        self._loop = loop
        self._pool = pool
        self._on_defect = on_defect
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._under_way: dict[bytes, asyncio.Task[None]] = {}
        """By the conversation's lease; there are no more of them than open exchanges."""

    @property
    def room(self) -> bool:
        """Whether another conversation can be carried over now."""
        return len(self._under_way) < MAX_AT_ONCE

    @staticmethod
    def possible(route: Route, packet: FlightPacket, before: Agent, after: Agent) -> bool:
        """Whether the conversation of `packet` may be carried from the one agent to the other.

        The packet must be one that policy admits at both: else it would have an agent tell another what its own caller
        could not.
        """
        return bool(
            before.state is AgentState.DRAINING
            and before.context_path
            and after.context_path
            and before.name in route.grants
            and _is_text(packet.affinity)
        )

    def under_way(self, key: bytes) -> asyncio.Task[None] | None:
        """What the packets of the conversation with this lease have to wait for."""
        return self._under_way.get(key)

    def begin(self, key: bytes, packet: FlightPacket, before: Agent, after: Agent) -> None:
        """Carry over the context of a conversation that has just moved, unless that is under way.

        Args:
            key: its lease.
            packet: any of its packets.
            before: the agent that it was at.
            after: the one that it is at now.

        """
        if key not in self._under_way:
            task = self._under_way[key] = self._loop.create_task(self._migrate(packet, before, after))
            task.add_done_callback(lambda _: self._under_way.pop(key))

    async def _migrate(self, packet: FlightPacket, before: Agent, after: Agent) -> None:
        try:
            outcome = await self._carry(packet, before, after)
        except _Failure as failure:
            outcome = failure.outcome
            log.warning("a conversation's context did not get from %s to %s: %s", before.name, after.name, failure)
        except Exception:
            self._on_defect()
            log.exception("a conversation's context did not get from %s to %s", before.name, after.name)
            return
        self.outcomes[outcome] += 1

    async def _carry(self, packet: FlightPacket, before: Agent, after: Agent) -> Outcome:
        fields: Fields = [
            (names.CONVERSATION, names.sf_string(packet.affinity.decode("ascii"))),
            (names.CAPABILITY, packet.capabilities.label.encode()),
        ]
        begun = self._loop.time()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise _Failure(Outcome.NOT_GIVEN, "too many others are under way") from None
        try:
            context = await self._fetch(before, fields, TIMEOUT_S - (self._loop.time() - begun))
            if context is None:
                return Outcome.NOTHING
            await self._give(after, fields, context)
        finally:
            self._turns.release()
        return Outcome.CARRIED

    async def _fetch(self, agent: Agent, fields: Fields, timeout_s: float) -> _Context | None:
        pool = self._pool(agent)
        try:
            request = _head(b"GET", agent, pool.scheme, fields)
            head, body = await errand.ask(pool, request, max_bytes=MAX_CONTEXT_BYTES, timeout_s=timeout_s)
        except errand.ErrandError as error:
            raise _Failure(Outcome.NOT_GIVEN, f"{agent.name}: {error}") from None
        if head.status == 404:
            return None
        if head.status != 200:
            raise _Failure(Outcome.NOT_GIVEN, f"{agent.name} answers {head.status}")
        digest = b", ".join(value for name, value in head.fields if name == names.CONTENT_DIGEST)
        try:
            check = digest_check(digest)
        except MalformedPacketError as malformed:
            raise _Failure(Outcome.MISMATCH, f"{agent.name}: {malformed}") from None
        if check is None:
            raise _Failure(Outcome.MISMATCH, f"{agent.name} sends no content-digest of sha-256 or sha-512")
        check.update(body)
        if not check.matches():
            raise _Failure(Outcome.MISMATCH, f"{agent.name}: the context is not the one that its digest was made of")
        carried = [(name, value) for name in _CARRIED if (value := field_value(head.fields, name)) is not None]
        return _Context([(names.CONTENT_DIGEST, digest), *carried], body)

    async def _give(self, agent: Agent, fields: Fields, context: _Context) -> None:
        pool = self._pool(agent)
        length = (b"content-length", b"%d" % len(context.body))
        request = _head(b"PUT", agent, pool.scheme, [*fields, *context.fields, length])
        try:
            answer = await errand.ask(pool, request, context.body, max_bytes=MAX_CONTEXT_BYTES, timeout_s=TIMEOUT_S)
        except errand.ErrandError as error:
            raise _Failure(Outcome.NOT_TAKEN, f"{agent.name}: {error}") from None
        if not 200 <= answer.head.status < 300:
            raise _Failure(Outcome.NOT_TAKEN, f"{agent.name} answers {answer.head.status}")

    async def close(self) -> None:
        """Carry nothing any further."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _head(method: bytes, agent: Agent, scheme: bytes, fields: Fields) -> RequestHead:
    host = f"[{agent.host}]" if ":" in agent.host else agent.host
    return RequestHead(method, scheme, f"{host}:{agent.port}".encode(), agent.context_path.encode(), fields)


def _is_text(affinity: bytes) -> bool:
    """Whether it can be said as a String (RFC 9651 section 3.3.3); an ``mcp-session-id`` may be anything."""
    return affinity.isascii() and affinity.decode("ascii").isprintable()
