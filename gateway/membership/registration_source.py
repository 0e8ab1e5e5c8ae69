"""The membership source whose members have registered themselves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Mapping
from typing import Final

from gateway.membership.cards import CardReader
from gateway.membership.registration import agent_of
from gateway.membership.registration_store import RegistrationStore
from gateway.routing import Agent

STORE: Final = "registrations"
"""The name under which trouble with the store stands among the problems."""


class RegistrationSource:
    """Makes members of what a store keeps, and of their agent cards."""

    name: Final = "registration"

    def __init__(
        self,
        store: RegistrationStore,
        on_change: Callable[[], None],
        *,
        card_context: Callable[[Agent], ssl.SSLContext],
    ) -> None:
        """Listen to `store` alone from now on.

        Args:
            store: where registrations are kept.
            on_change: called on the event loop after `agents` or `problems` changed.
            card_context: see `CardReader`.

        """
        self.agents: Mapping[str, Agent] = {}
        self._on_change = on_change
        self._store = store
        self._cards = CardReader(card_context, self._cards_changed)
        self._with_card: dict[str, Agent] = {}
        store.on_change = self._changed

    @property
    def problems(self) -> Mapping[str, str]:
        """What is wrong with the store, or with agents' cards, by name."""
        trouble = self._store.trouble
        return {**self._cards.problems, **({STORE: trouble} if trouble else {})}

    def _changed(self, names: Collection[str]) -> None:
        found = {name: self._store.get(name) for name in names}
        with_card = {name: agent for name, agent in self._with_card.items() if name not in found}
        with_card.update({name: agent_of(each) for name, each in found.items() if each is not None and each.agent_card})
        if with_card != self._with_card:
            self._with_card = with_card
            self._cards.follow(with_card.values())
        agents = dict(self.agents)
        for name, registration in found.items():
            agents.pop(name, None)
            if registration is not None:
                agent = agent_of(registration, self._cards.capabilities.get(name, frozenset()))
                if agent.capabilities:
                    agents[name] = agent
        self.agents = agents
        self._on_change()

    def _cards_changed(self) -> None:
        self._changed(self._with_card)

    async def run(self) -> None:
        """Keep up with the store and the cards until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store.run())
            tasks.create_task(self._cards.run())

    def status(self) -> dict[str, object]:
        """How many registrations there are, and how their cards are."""
        return {
            "registrations": self._store.count,
            "members": len(self.agents),
            "lost": self._store.lost,
            "trouble": self._store.trouble,
            "cards": self._cards.status(),
        }

    @property
    def complete(self) -> bool:
        """Always: agents come by themselves."""
        return True

    @property
    def lacking(self) -> str:
        """Nothing."""
        return ""

    def watches(self) -> Mapping[str, tuple[str, float]]:
        """Nothing."""
        return {}
