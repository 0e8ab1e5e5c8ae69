"""From objects to agents, a Service at a time: what a change does not touch is not computed again.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gateway.membership.kubernetes.objects import (
    SERVICE_OF_SLICE,
    Endpoints,
    EndpointSlice,
    Key,
    Object,
    Service,
    slices_of,
)
from gateway.membership.kubernetes.offer import OfferError, offer_of
from gateway.membership.kubernetes.places import places_of
from gateway.membership.kubernetes.spec import IpFamily
from gateway.routing import Agent, AgentState


class Catalog:
    """The objects as they are now; `settle` brings the agents up to date with them."""

    def __init__(self, prefer: IpFamily = IpFamily.IPV4) -> None:
        self.agents: Mapping[str, Agent] = {}
        """By name; replaced as a whole."""
        self.problems: Mapping[str, str] = {}
        """By ``namespace/name`` of the Service; replaced as a whole."""
        self._prefer = prefer
        self._services: dict[Key, Service] = {}
        self._places: dict[Key, Key] = {}
        """Which Service each slice, or Endpoints object, belongs to."""
        self._slices: dict[Key, dict[Key, list[EndpointSlice]]] = {}
        """By Service, then by the object that they come from."""
        self._changed: set[Key] = set()
        self._offers: dict[Key, dict[str, Agent]] = {}
        """By Service, the agents as it alone has them."""
        self._wrong: dict[Key, str] = {}
        self._shared: dict[str, dict[Key, Agent]] = {}
        """By agent's name, the same agents by Service."""
        self._conflicts: dict[str, dict[Key, str]] = {}

    def put(self, found: Object) -> None:
        """An object is new, or has changed, or was listed again."""
        key = found.metadata.key
        if isinstance(found, Service):
            if self._services.get(key) != found:
                self._services[key] = found
                self._changed.add(key)
            return
        owner = key if isinstance(found, Endpoints) else _owner(found)
        slices = slices_of(found) if isinstance(found, Endpoints) else [found]
        if self._places.get(key, owner) != owner:
            self._remove_place(key)
        self._places[key] = owner
        of_owner = self._slices.setdefault(owner, {})
        if of_owner.get(key) != slices:
            of_owner[key] = slices
            self._changed.add(owner)

    def remove(self, kind: type[Object], key: Key) -> None:
        """An object is gone; Endpoints and EndpointSlices are never there together."""
        if kind is not Service:
            self._remove_place(key)
        elif self._services.pop(key, None) is not None:
            self._changed.add(key)

    def _remove_place(self, key: Key) -> None:
        owner = self._places.pop(key, None)
        if owner is not None:
            self._slices[owner].pop(key)
            if not self._slices[owner]:
                del self._slices[owner]
            self._changed.add(owner)

    def keys(self, kind: type[Object]) -> Iterable[Key]:
        """What there is of a kind now."""
        return list(self._services if kind is Service else self._places)

    def settle(self) -> bool:
        """Compute anew what changed since the last time; whether agents or problems are others now."""
        touched: set[str] = set()
        for key in self._changed:
            before = self._offers.pop(key, {})
            self._wrong.pop(key, None)
            after = self._compute(key) if key in self._services else {}
            if after:
                self._offers[key] = after
            for name in before.keys() | after.keys():
                if before.get(name) != after.get(name):
                    touched.add(name)
                    self._share(name, key, after.get(name))
        self._changed.clear()
        agents = dict(self.agents)
        for name in touched:
            self._merge(name, agents)
        problems = {str(key): why for each in self._conflicts.values() for key, why in each.items()}
        problems.update((str(key), why) for key, why in self._wrong.items())
        changed = any(agents.get(name) != self.agents.get(name) for name in touched) or problems != self.problems
        if changed:
            self.agents, self.problems = agents, problems
        return changed

    def _compute(self, key: Key) -> dict[str, Agent]:
        """The agents behind one Service, as it alone has them."""
        try:
            offer = offer_of(self._services[key])
        except OfferError as error:
            self._wrong[key] = str(error)
            return {}
        slices = (each for found in self._slices.get(key, {}).values() for each in found)
        places, problem = places_of(key, slices, offer.port_name, self._prefer)
        if problem:
            self._wrong[key] = problem
        return {
            place.name: Agent(
                name=place.name,
                host=place.host,
                port=place.port,
                capabilities=offer.capabilities,
                trust=offer.trust,
                labels=offer.labels,
                protocol=offer.protocol,
                spiffe_id=offer.spiffe_id,
                context_path=offer.context_path,
                state=place.state,
                zone=place.zone,
            )
            for place in places
        }

    def _share(self, name: str, key: Key, agent: Agent | None) -> None:
        shared = self._shared.setdefault(name, {})
        if agent is not None:
            shared[key] = agent
        else:
            shared.pop(key, None)
            if not shared:
                del self._shared[name]

    def _merge(self, name: str, agents: dict[str, Agent]) -> None:
        """Make one agent of what all Services have under `name`, the first by namespace and name before the others."""
        shared = self._shared.get(name, {})
        self._conflicts.pop(name, None)
        agents.pop(name, None)
        conflicts: dict[Key, str] = {}
        for key in sorted(shared):
            first, other = agents.get(name), shared[key]
            if first is None:
                agents[name] = other
            elif why := _conflict(first, other):
                conflicts[key] = f"agent {name} is left to {min(shared)}, which has another {why}"
            else:
                agents[name] = _both(first, other)
        if conflicts:
            self._conflicts[name] = conflicts


def _owner(found: EndpointSlice) -> Key:
    return Key(found.metadata.namespace, (found.metadata.labels or {}).get(SERVICE_OF_SLICE, ""))


def _conflict(first: Agent, other: Agent) -> str:
    """In what two Services contradict each other about one agent; empty if they agree."""
    if first.host != other.host:
        return "address"
    if first.port != other.port:
        return "port"
    if first.protocol is not other.protocol:
        return "protocol"
    return "SPIFFE ID" if first.spiffe_id != other.spiffe_id else ""


def _both(first: Agent, other: Agent) -> Agent:
    """One agent that can do what both Services say, trusted as the more careful one says."""
    states = (first.state, other.state)
    return replace(
        first,
        capabilities=first.capabilities | other.capabilities,
        trust=min(first.trust, other.trust),
        labels=tuple(sorted({**dict(other.labels), **dict(first.labels)}.items())),
        state=AgentState.DRAINING if AgentState.DRAINING in states else AgentState.READY,
        zone=first.zone or other.zone,
    )
