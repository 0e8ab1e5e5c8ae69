"""Where the agents behind a Service are, and whether they take packets, by its EndpointSlices."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from gateway.membership.kubernetes.objects import Conditions, Endpoint, EndpointSlice, Key
from gateway.membership.kubernetes.spec import IpFamily
from gateway.routing import AgentState

MAX_NAME: Final = 253


class Place(NamedTuple):
    """One endpoint that packets can be sent to."""

    name: str
    """Of the agent: of its pod and namespace, or of its Service, address and namespace."""
    host: str
    port: int
    state: AgentState
    zone: str


class Places(NamedTuple):
    """Where the agents behind a Service are."""

    places: tuple[Place, ...]
    """One for each name, sorted by it."""
    problem: str
    """Why endpoints had to be left out; empty if none had to be."""


class _Seen(NamedTuple):
    """An endpoint as one slice has it; the smallest is the one to use."""

    rank: int
    """0 for the family that is preferred."""
    address: str
    port: int
    zone: str
    uid: str
    state: AgentState


def places_of(service: Key, slices: Iterable[EndpointSlice], port_name: str, prefer: IpFamily) -> Places:
    """The endpoints in `slices` that are ready, or serve on until they end.

    An endpoint that stands in several slices, of one family or of two, is one place.  Its address is of the family
    that is preferred.  It is draining if one slice says so: a pod that began to end never comes back.
    """
    seen: dict[str, list[_Seen]] = {}
    problem = ""
    for each in slices:
        port = _port(each, port_name)
        if port is None:
            if each.endpoints:
                problem = f"endpoints are left out that have no TCP port {port_name!r}"
            continue
        for name, found in _endpoints(service, each, port, prefer):
            if len(name) > MAX_NAME:
                problem = f"endpoints are left out whose names would have more than {MAX_NAME} characters"
            else:
                seen.setdefault(name, []).append(found)
    return Places(tuple(_one(name, seen[name]) for name in sorted(seen)), problem)


def _port(each: EndpointSlice, name: str) -> int | None:
    for port in each.ports or ():
        if (port.name or "") == name and port.protocol in (None, "", "TCP") and port.port:
            return port.port
    return None


def _endpoints(service: Key, each: EndpointSlice, port: int, prefer: IpFamily) -> Iterator[tuple[str, _Seen]]:
    """The endpoints of one slice that are members, by the names of their agents."""
    rank = int(each.address_type != prefer.value)
    for endpoint in each.endpoints or ():
        state = _state(endpoint.conditions)
        if state is not None and endpoint.addresses:
            # Addresses beyond the first have no meaning (EndpointSlice API, `addresses`).
            address = endpoint.addresses[0]
            target = endpoint.target_ref
            uid = target.uid if target is not None else ""
            yield _name(service, endpoint, address), _Seen(rank, address, port, endpoint.zone or "", uid, state)


def _state(conditions: Conditions) -> AgentState | None:
    """Ready, draining, or no member; unknown is ready, as the API has it."""
    ready = conditions.ready is not False
    serving = ready if conditions.serving is None else conditions.serving
    if ready and not conditions.terminating:
        return AgentState.READY
    return AgentState.DRAINING if serving else None


def _name(service: Key, endpoint: Endpoint, address: str) -> str:
    target = endpoint.target_ref
    if target is not None and target.kind == "Pod" and target.name:
        return f"{target.name}.{target.namespace or service.namespace}"
    try:
        # In full: "::" would put a dash at an end.
        text = ipaddress.ip_address(address).exploded
    except ValueError:
        text = address.lower()
    return f"{service.name}-{text.replace(':', '-').replace('.', '-')}.{service.namespace}"


def _one(name: str, seen: list[_Seen]) -> Place:
    # A pod of a StatefulSet comes back under its name: while both are there, the one that is ready counts.
    draining = {each.uid for each in seen if each.state is AgentState.DRAINING}
    living = [each for each in seen if each.uid not in draining]
    chosen = min(living or seen, key=lambda each: each[:4])
    state = AgentState.READY if living else AgentState.DRAINING
    return Place(name, chosen.address, chosen.port, state, chosen.zone)
