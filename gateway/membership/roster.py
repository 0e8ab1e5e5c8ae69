"""The roster: what every source says of members, as one list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.routing import Agent


class Source(Protocol):
    """Where members come from."""

    @property
    def name(self) -> str:
        """What it is called in ``/status``."""
        ...

    @property
    def agents(self) -> Mapping[str, Agent]:
        """Those that it knows, by name: replaced as a whole, never changed in place."""
        ...

    @property
    def problems(self) -> Mapping[str, str]:
        """What it had to leave out, and why, by the name of the thing."""
        ...

    @property
    def complete(self) -> bool:
        """Whether it has heard once of everybody there is."""
        ...

    @property
    def lacking(self) -> str:
        """Which rights it would have to be given for that, in words; empty when none is known to be missing."""
        ...

    async def run(self) -> None:
        """Follow what changes, until cancelled."""

    def status(self) -> dict[str, object]:
        """How it is, as JSON values."""
        ...

    def watches(self) -> Mapping[str, tuple[str, float]]:
        """State, and seconds since something was heard, of what it watches, by name."""
        ...


class Composed(NamedTuple):
    """Every member."""

    agents: tuple[Agent, ...]
    """Sorted by name."""
    problems: Mapping[str, str]
    """Members that were left out because another source has the name, with why."""


def compose(files: Iterable[Agent], sources: Sequence[Source], *, tls: bool) -> Composed:
    """All members; where two sources have a name, the earlier one's agent serves, the files' first of all.

    Args:
        files: the agents of the files, which are members in any case.
        sources: the others.
        tls: whether the gateway has an identity to show; without one, agents over TLS cannot be reached.

    """
    agents = {agent.name: agent for agent in files}
    whose = dict.fromkeys(agents, "file")
    problems: dict[str, str] = {}
    for source in sources:
        for name, agent in source.agents.items():
            if name in agents:
                problems[name] = f"left out of {source.name}: the name is taken by a member of {whose[name]}"
            elif agent.tls and not tls:
                problems[name] = f"left out of {source.name}: it is reached over TLS, which needs spec.identity"
            else:
                agents[name] = agent
                whose[name] = source.name
    return Composed(tuple(agents[name] for name in sorted(agents)), problems)
