"""What a Service says of the agents behind it, by its labels, annotations and ports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.identity import IdentityError, SpiffeId, parse_spiffe_id
from gateway.membership.file import is_capability, parse_context_path
from gateway.membership.kubernetes.objects import Service, ServicePort
from gateway.routing import Protocol

IS_AGENT: Final = "phoenixflight.io/agent"
"""The label, of value ``true``, of Services whose endpoints are agents."""
CAPABILITIES: Final = "phoenixflight.io/capabilities"
CAPABILITY_PREFIX: Final = "capability.phoenixflight.io/"
TRUST: Final = "phoenixflight.io/trust"
PORT: Final = "phoenixflight.io/port"
SPIFFE_ID: Final = "phoenixflight.io/spiffe-id"
CONTEXT_PATH: Final = "phoenixflight.io/context-path"
PORT_NAMES: Final = ("flight", "http", "h2c", "h2", "https")
"""The names of ports for packets, the first that a Service has."""

_PROTOCOLS: Final = {
    None: Protocol.HTTP1,
    "": Protocol.HTTP1,
    "http": Protocol.HTTP1,
    "kubernetes.io/h2c": Protocol.H2C,
    "h2": Protocol.H2,
    "https": Protocol.H2,
}
_TRUST = re.compile(r"[01]|[01]?\.\d{1,17}|[01]\.")
_OTHERS_PREFIX = re.compile(r"(?:[^/]*\.)?(?:phoenixflight\.io|kubernetes\.io|k8s\.io)/.*")


class OfferError(ValueError):
    """A Service whose agents cannot be members; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What all agents behind a Service have in common."""

    capabilities: frozenset[str]
    trust: float
    labels: tuple[tuple[str, str], ...]
    """Sorted by key; without those of Kubernetes and of the gateway."""
    protocol: Protocol
    spiffe_id: SpiffeId | None
    context_path: str
    port_name: str
    """What the port is called in the Service, and so in its EndpointSlices; empty if it has no name."""


def offer_of(service: Service) -> Offer:
    """What `service` offers.

    Raises:
        OfferError: nothing that could be used.

    """
    labels = service.metadata.labels or {}
    annotations = service.metadata.annotations or {}
    if service.spec.type == "ExternalName":
        raise OfferError("a Service of type ExternalName has no endpoints")
    port = _port(service.spec.ports or [], annotations.get(PORT))
    if port.app_protocol not in _PROTOCOLS:
        known = ", ".join(name for name in _PROTOCOLS if name)
        raise OfferError(f"the port's appProtocol {port.app_protocol!r} is none of {known}")
    protocol = _PROTOCOLS[port.app_protocol]
    spiffe_id = _spiffe_id(annotations.get(SPIFFE_ID))
    if protocol is Protocol.H2C and spiffe_id is not None:
        raise OfferError(f"h2c is plaintext and can show no identity; use h2 or leave out {SPIFFE_ID}")
    return Offer(
        capabilities=_capabilities(labels, annotations.get(CAPABILITIES, "")),
        trust=_trust(annotations.get(TRUST, labels.get(TRUST, "1"))),
        labels=tuple(sorted(each for each in labels.items() if _OTHERS_PREFIX.fullmatch(each[0]) is None)),
        protocol=protocol,
        spiffe_id=spiffe_id,
        context_path=_context_path(annotations.get(CONTEXT_PATH)),
        port_name=port.name or "",
    )


def _port(ports: list[ServicePort], wanted: str | None) -> ServicePort:
    usable = [port for port in ports if port.protocol in (None, "", "TCP")]
    if wanted is not None:
        for port in usable:
            if wanted in (port.name, str(port.port)):
                return port
        raise OfferError(f"it has no TCP port {wanted!r}, which {PORT} asks for")
    by_name = {port.name: port for port in usable}
    for name in PORT_NAMES:
        if name in by_name:
            return by_name[name]
    if not usable:
        raise OfferError("it has no TCP port")
    if len(usable) > 1:
        raise OfferError(f"it has {len(usable)} TCP ports: name one {PORT_NAMES[0]} or http, or set {PORT}")
    return usable[0]


def _capabilities(labels: dict[str, str], listed: str) -> frozenset[str]:
    found = {name for each in listed.split(",") if (name := each.strip())}
    for label, value in labels.items():
        if label.startswith(CAPABILITY_PREFIX):
            if value not in ("true", "false"):
                raise OfferError(f"the label {label} must be true or false, not {value!r}")
            if value == "true":
                found.add(label.removeprefix(CAPABILITY_PREFIX))
    for name in sorted(found):
        if not is_capability(name):
            raise OfferError(f"{name[:80]!r} is not a capability, such as code.execute")
    if not found:
        raise OfferError(f"it names no capability: set {CAPABILITIES} or labels {CAPABILITY_PREFIX}NAME")
    return frozenset(found)


def _trust(text: str) -> float:
    if _TRUST.fullmatch(text) is None or float(text) > 1:
        raise OfferError(f"{TRUST} must be a number from 0 to 1, not {text[:80]!r}")
    return float(text)


def _spiffe_id(text: str | None) -> SpiffeId | None:
    if text is None:
        return None
    try:
        return parse_spiffe_id(text)
    except IdentityError as error:
        raise OfferError(f"{SPIFFE_ID}: {error}") from None


def _context_path(text: str | None) -> str:
    if text is None:
        return ""
    try:
        return parse_context_path(text)
    except ValueError as error:
        raise OfferError(f"{CONTEXT_PATH}: {error}") from None
