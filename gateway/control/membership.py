"""Who the members are: the files' agents, what other sources say, what cards and health add."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random
from time import monotonic

from gateway.control.config import GatewaySpec
from gateway.documents import DocumentError, Problem
from gateway.membership.cards import CardReader, with_cards
from gateway.membership.file import ListedAgents
from gateway.membership.health import Health
from gateway.membership.kubernetes import KubernetesSpec
from gateway.membership.overrides import Overrides
from gateway.membership.registration_api import Registrations
from gateway.membership.registration_source import RegistrationSource
from gateway.membership.registration_store import RegistrationStore
from gateway.membership.roster import Source, compose
from gateway.policy.membership import MembershipPolicySet
from gateway.routing import Agent

Context = Callable[[Agent], ssl.SSLContext]


def _kubernetes(spec: KubernetesSpec, on_change: Callable[[], None]) -> Source:
    """Members from a cluster.

    Raises:
        DocumentError: the client library is not installed.

    """
    try:
        from gateway.membership.kubernetes.source import KubernetesSource
    except ImportError:
        message = "spec.kubernetes needs the extra kubernetes: pip install 'phoenixflight-gateway[kubernetes]'"
        raise DocumentError([Problem("gateway.yaml", 1, 1, message)]) from None
    return KubernetesSource(spec, on_change)


class Membership:
    """Owns the sources of members and what is observed of them; `everyone` is what they come to."""

    def __init__(
        self,
        config: GatewaySpec,
        on_change: Callable[[], None],
        *,
        store: RegistrationStore,
        policies: Callable[[], MembershipPolicySet],
        context: Context,
        new_context: Context,
    ) -> None:
        """Nothing is followed yet.

        Args:
            config: which sources there are.
            on_change: called on the event loop when `everyone` may come to something else.
            store: where registrations are kept.
            policies: who may register what, as it is in force.
            context: gives the TLS context for a connection to an agent.
            new_context: the same, for somebody who changes it.

        """
        self._tls = config.identity is not None
        self._on_change = on_change
        self.health = Health(config.health, on_change=on_change, clock=monotonic, rng=Random(), context=context)
        self.overrides = Overrides(on_change)
        """What operators have said of members."""
        self.registrations = Registrations(store, policies=policies, taken=self._taken)
        self._cards = CardReader(new_context, on_change)
        self._listed = ListedAgents((), frozenset())
        self.sources: tuple[Source, ...] = tuple(self._sources(config, store, new_context))
        self._left_out: Mapping[str, str] = {}

    def _sources(self, config: GatewaySpec, store: RegistrationStore, new_context: Context) -> Iterator[Source]:
        if config.kubernetes is not None:
            yield _kubernetes(config.kubernetes, self._on_change)
        yield RegistrationSource(store, self._on_change, card_context=new_context)

    def _taken(self, name: str) -> bool:
        """Whether a member has this name that has not registered."""
        others = (source for source in self.sources if source.name != RegistrationSource.name)
        return any(agent.name == name for agent in self._listed.agents) or any(name in each.agents for each in others)

    def composed(self, listed: ListedAgents) -> tuple[Agent, ...]:
        """All members as their sources and operators have them now, sorted by name; may be called in any thread.

        Args:
            listed: the agents of the files.

        """
        files = with_cards(listed.agents, listed.with_card, self._cards.capabilities)
        composed = compose(files.values(), self.sources, tls=self._tls)
        self._left_out = composed.problems
        return self.overrides.overlay(composed.agents)

    def sourced(self, name: str) -> Agent | None:
        """The member `name` as its source has it."""
        for agent in self._listed.agents:
            if agent.name == name:
                return agent
        return next((source.agents[name] for source in self.sources if name in source.agents), None)

    def whose(self) -> dict[str, str]:
        """The names of members' sources, by the names of the members; may be called in any thread."""
        found = {name: source.name for source in reversed(self.sources) for name in source.agents}
        return {**found, **dict.fromkeys((agent.name for agent in self._listed.agents), "file")}

    def observed(self, agents: Iterable[Agent]) -> tuple[Agent, ...]:
        """`agents` with what is observed of them; may be called in any thread."""
        return self.health.overlay(agents)

    def follow(self, listed: ListedAgents, agents: tuple[Agent, ...]) -> None:
        """From now on `agents` are the members, composed of `listed` and the other sources."""
        if listed is not self._listed:
            self._listed = listed
            self._cards.follow(agent for agent in listed.agents if agent.name in listed.with_card)
        self.health.follow(agents, listed.checks)

    @property
    def problems(self) -> dict[str, str]:
        """What is no member, or not as it should be, and why; by name."""
        found: dict[str, str] = {}
        for source in self.sources:
            found.update(source.problems)
        return {**found, **self._cards.problems, **self._left_out}

    @property
    def waiting(self) -> str:
        """The names of the sources that have not told of their members yet, and the rights that they lack."""
        late = (source for source in self.sources if not source.complete)
        return ", ".join(f"{each.name}, which {each.lacking}" if each.lacking else each.name for each in late)

    def watches(self) -> dict[str, tuple[str, float]]:
        """State and age in seconds of what is watched for members, by name."""
        return {watch: found for source in self.sources for watch, found in source.watches().items()}

    def status(self) -> dict[str, object]:
        """How sources and members are, as JSON values."""
        return {
            "sources": {source.name: source.status() for source in self.sources},
            "cards": self._cards.status(),
            "health": self.health.status(),
            "problems": self.problems,
        }

    async def run(self) -> None:
        """Follow everything, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cards.run())
            tasks.create_task(self.health.run())
            for source in self.sources:
                tasks.create_task(source.run())
