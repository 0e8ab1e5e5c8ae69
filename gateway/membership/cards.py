"""What agents can do, by their A2A agent cards.

A card (``/.well-known/agent-card.json``, A2A specification section 8) lists skills.  The ``id`` of a skill is a
capability if it can be one: a letter first, then what a token of RFC 9651 has.  Another id, and tags, say nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

import httpx
import msgspec

from gateway.identity import IdentityError, principal_from_certificate
from gateway.membership.file import is_capability
from gateway.routing import Agent, Protocol

PATH: Final = "/.well-known/agent-card.json"
MAX_CARD_BYTES: Final = 256 * 1024
MAX_SKILLS: Final = 256
"""Of one card; those beyond are passed over."""
REFRESH_S: Final = 300.0
TIMEOUT_S: Final = 5.0
"""For the whole card."""
FIRST_RETRY_S: Final = 0.5
MAX_RETRY_S: Final = 60.0
MAX_AT_ONCE: Final = 16
"""Cards that are read at the same time; others wait."""

log = logging.getLogger(__name__)


class CardError(Exception):
    """A card that cannot be used; the message says why."""


class _Skill(msgspec.Struct):
    id: str


class _Card(msgspec.Struct):
    skills: list[_Skill] = []


def capabilities_of(card: bytes) -> frozenset[str]:
    """The capabilities that a card's skills name.

    Raises:
        CardError: it is no agent card.

    """
    try:
        read = msgspec.json.decode(card, type=_Card)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CardError(f"the agent card cannot be read: {error}") from None
    return frozenset(skill.id for skill in read.skills[:MAX_SKILLS] if is_capability(skill.id))


def with_cards(
    agents: Iterable[Agent], with_card: frozenset[str], cards: Mapping[str, frozenset[str]]
) -> dict[str, Agent]:
    """The members among `agents`, by name: those named in `with_card` have what their card says as well.

    Who has no capability yet is no member.
    """
    members: dict[str, Agent] = {}
    for agent in agents:
        card = cards.get(agent.name) if agent.name in with_card else None
        if card:
            agent = replace(agent, capabilities=agent.capabilities | card)
        if agent.capabilities:
            members[agent.name] = agent
    return members


class CardReader:
    """Reads the cards of the agents that it is told to follow, again and again.

    The last good card counts until there is another, however often reading fails meanwhile.
    """

    def __init__(
        self,
        context: Callable[[Agent], ssl.SSLContext],
        on_change: Callable[[], None],
        *,
        refresh_s: float = REFRESH_S,
        timeout_s: float = TIMEOUT_S,
        first_retry_s: float = FIRST_RETRY_S,
        max_retry_s: float = MAX_RETRY_S,
        max_bytes: int = MAX_CARD_BYTES,
        entropy: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is followed yet.

        Args:
            context: gives a TLS context for each reading of a card.  It must be a fresh one: the client writes its
                ALPN protocols into it.
            on_change: called on the event loop after `capabilities` or `problems` changed.
            refresh_s: how long a card counts as new.
            timeout_s: for a whole card.
            first_retry_s: the wait after a failure, doubled with each until `max_retry_s`.
            max_retry_s: see `first_retry_s`.
            max_bytes: of a card.
            entropy: a number from 0 to 1, so that not all are read in the same moment.

        """
        self.capabilities: Mapping[str, frozenset[str]] = {}
        """By agent's name, what its last good card names."""
        self.problems: Mapping[str, str] = {}
        """By agent's name, why its card could not be read the last time."""
        self._context = context
        self._on_change = on_change
        self._refresh_s = refresh_s
        self._timeout_s = timeout_s
        self._first_retry_s = first_retry_s
        self._max_retry_s = max_retry_s
        self._max_bytes = max_bytes
        self._entropy = entropy
        self._followed: dict[str, Agent] = {}
        self._changed = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    def follow(self, agents: Iterable[Agent]) -> None:
        """Read the cards of `agents` from now on, and of no others.

        What the cards of others said is forgotten at once, and so is what an agent's card said at another place.
        """
        followed = {agent.name: agent for agent in agents}
        stay = {name for name, agent in followed.items() if _place(agent) == _place(self._followed.get(name))}
        self._followed = followed
        self.capabilities = {name: found for name, found in self.capabilities.items() if name in stay}
        self.problems = {name: why for name, why in self.problems.items() if name in stay}
        self._changed.set()

    async def run(self) -> None:
        """Read cards until cancelled."""
        reading: dict[str, tuple[Agent, asyncio.Task[None]]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                for name, (agent, task) in list(reading.items()):
                    if _place(agent) != _place(self._followed.get(name)):
                        task.cancel()
                        del reading[name]
                for name, agent in self._followed.items():
                    if name not in reading:
                        reading[name] = agent, tasks.create_task(self._keep(agent))
                await self._changed.wait()

    async def _keep(self, agent: Agent) -> None:
        retry_s = self._first_retry_s
        while True:
            try:
                async with self._slots:
                    capabilities = await self._read(agent)
            except CardError as error:
                self._note(agent, None, str(error))
                pause_s, retry_s = retry_s, min(retry_s * 2, self._max_retry_s)
            else:
                self._note(agent, capabilities, "")
                pause_s, retry_s = self._refresh_s, self._first_retry_s
            await asyncio.sleep(pause_s * (1 - self._entropy() / 4))

    def _note(self, agent: Agent, capabilities: frozenset[str] | None, problem: str) -> None:
        name = agent.name
        if _place(self._followed.get(name)) != _place(agent):
            return  # it is told to follow another by now
        before = self.capabilities.get(name), self.problems.get(name, "")
        if capabilities is None:
            capabilities = before[0]
        elif not capabilities:
            problem = "the agent card lists no skill whose id can be a capability"
        if (capabilities, problem) == before:
            return
        if capabilities is not None:
            self.capabilities = {**self.capabilities, name: capabilities}
        problems = {each: why for each, why in self.problems.items() if each != name}
        if problem:
            problems[name] = problem
        self.problems = problems
        if problem:
            log.warning("agent %s: %s", name, problem)
        self._on_change()

    async def _read(self, agent: Agent) -> frozenset[str]:
        """The capabilities on `agent`'s card.

        Raises:
            CardError: it cannot be had, or is none.

        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return capabilities_of(await self._fetch(agent))
        except TimeoutError:
            raise CardError(f"the agent card did not come within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise CardError(f"the agent card could not be fetched: {str(error) or type(error).__name__}") from None
        except CardError:
            raise
        except Exception as error:
            # Whatever a client library makes of what a stranger sends costs this card only.
            log.exception("the card of agent %s could not be read", agent.name)
            raise CardError(f"the gateway failed to read the agent card: {type(error).__name__}") from None

    async def _fetch(self, agent: Agent) -> bytes:
        http2 = agent.protocol is not Protocol.HTTP1
        url = httpx.URL(scheme="https" if agent.tls else "http", host=agent.host, port=agent.port, path=PATH)
        # For plaintext a context that trusts nobody: the client's own would read the system's roots each time.
        context = self._context(agent) if agent.tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        async with (
            httpx.AsyncClient(
                verify=context, http1=not http2, http2=http2, headers=headers, trust_env=False, timeout=self._timeout_s
            ) as client,
            client.stream("GET", url) as response,
        ):
            self._check(agent, response)
            card = bytearray()
            async for piece in response.aiter_raw():
                card += piece
                if len(card) > self._max_bytes:
                    raise CardError(f"the agent card is larger than {self._max_bytes} bytes")
            return bytes(card)

    def _check(self, agent: Agent, response: httpx.Response) -> None:
        """Whether it is the agent who answers, with a card."""
        if agent.spiffe_id is not None:
            shown = response.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(binary_form=True)
            try:
                found = principal_from_certificate(shown).id
            except IdentityError as error:
                raise CardError(f"the agent at {response.url.netloc.decode()}: {error}") from None
            if found != agent.spiffe_id:
                raise CardError(f"the agent at {response.url.netloc.decode()} shows {found}, not {agent.spiffe_id}")
        if response.status_code != httpx.codes.OK:
            raise CardError(f"the agent answered {response.status_code} to GET {PATH}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise CardError("the agent card is compressed, which was not asked for")

    def status(self) -> dict[str, object]:
        """How many cards are followed, read and in trouble."""
        return {"followed": len(self._followed), "read": len(self.capabilities), "problems": dict(self.problems)}


def _place(agent: Agent | None) -> tuple[object, ...]:
    """Where and whose the card is."""
    return (agent.host, agent.port, agent.protocol, agent.spiffe_id) if agent is not None else ()
