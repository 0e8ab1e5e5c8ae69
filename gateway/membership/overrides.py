"""What operators have said of members: it is laid over what their sources say, until it is taken back.

It lives in this process and ends with it.  A member is never made more available by it than its source has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from gateway.routing import Agent, AgentState

MAX_OVERRIDES: Final = 1_000
_ORDER: Final = {state: at for at, state in enumerate(AgentState)}
"""From the most available to the least: ready, draining, ejected, retired."""


class Override(NamedTuple):
    """What a member is to be."""

    state: AgentState
    who: str
    """Whoever said so."""
    at: datetime


class OverrideError(ValueError):
    """Something that cannot be done; the message says why."""


class Overrides:
    """By members' names, be they members now or not."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        """Nothing is overridden; `on_change` is called when `overlay` may come to something else."""
        self._on_change = on_change
        self._all: Mapping[str, Override] = MappingProxyType({})
        """Replaced as a whole: threads read it."""
        self._made: dict[str, tuple[Agent, Agent]] = {}
        """What was last made of which agent: the same for as long as nothing changes."""

    @property
    def all(self) -> Mapping[str, Override]:
        """Those in force."""
        return self._all

    def put(self, name: str, override: Override) -> None:
        """From now on `name` is to be as `override` says.

        Raises:
            OverrideError: there are `MAX_OVERRIDES` already.

        """
        if name not in self._all and len(self._all) >= MAX_OVERRIDES:
            raise OverrideError(f"{MAX_OVERRIDES:,} members are overridden already: restore some")
        self._all = MappingProxyType({**self._all, name: override})
        self._on_change()

    def take_back(self, name: str) -> bool:
        """Leave `name` to its source again; gives whether anything was said of it."""
        if name not in self._all:
            return False
        self._all = MappingProxyType({key: value for key, value in self._all.items() if key != name})
        self._on_change()
        return True

    def overlay(self, agents: Iterable[Agent]) -> tuple[Agent, ...]:
        """`agents` as they are to be; those of which nothing was said are the same objects."""
        overrides = self._all
        if not overrides:
            return tuple(agents)
        return tuple(
            self._overlaid(agent, overrides[agent.name].state) if agent.name in overrides else agent for agent in agents
        )

    def _overlaid(self, agent: Agent, state: AgentState) -> Agent:
        if is_as_far(agent.state, state):
            return agent
        made_of, made = self._made.get(agent.name, (None, agent))
        if made_of is not agent or made.state is not state:
            made = replace(agent, state=state)
            if len(self._made) >= 2 * MAX_OVERRIDES:
                self._made.clear()
            self._made[agent.name] = agent, made
        return made


def is_as_far(state: AgentState, wanted: AgentState) -> bool:
    """Whether a member in `state` takes no more packets than one in `wanted` would."""
    return _ORDER[state] >= _ORDER[wanted]
