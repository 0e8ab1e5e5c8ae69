"""What is read of Kubernetes objects: the fields that membership needs, and no others."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

SERVICE_OF_SLICE: Final = "kubernetes.io/service-name"
"""The label by which an EndpointSlice names its Service."""


class Key(NamedTuple):
    """An object of a kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """Part of an object; what is null in JSON is None."""


class ObjectMeta(Part, frozen=True):
    """``metadata`` of an object, of a list or of a bookmark."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    @property
    def key(self) -> Key:
        """Its key among objects of its kind."""
        return Key(self.namespace, self.name)


class Bare(Part, frozen=True):
    """An object of which only the metadata are read."""

    metadata: ObjectMeta


class ServicePort(Part, frozen=True):
    """``spec.ports[]`` of a Service."""

    port: int
    name: str | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class ServiceSpec(Part, frozen=True):
    """``spec`` of a Service."""

    ports: list[ServicePort] | None = None
    type: str | None = None


class Service(Part, frozen=True):
    """A Service of the core group, v1."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()


class ObjectReference(Part, frozen=True):
    """What stands behind an address."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Conditions(Part, frozen=True):
    """``conditions`` of an endpoint; None is unknown."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Part, frozen=True):
    """``endpoints[]`` of an EndpointSlice."""

    addresses: list[str]
    conditions: Conditions = Conditions()
    target_ref: ObjectReference | None = None
    zone: str | None = None


class EndpointPort(Part, frozen=True):
    """A port of all endpoints of a slice or subset."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class EndpointSlice(Part, frozen=True):
    """An EndpointSlice of discovery.k8s.io, v1."""

    metadata: ObjectMeta
    address_type: str = ""
    """``IPv4``, ``IPv6`` or ``FQDN``."""
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class EndpointAddress(Part, frozen=True):
    """``subsets[].addresses[]`` of Endpoints."""

    ip: str
    target_ref: ObjectReference | None = None


class EndpointSubset(Part, frozen=True):
    """``subsets[]`` of Endpoints.  Addresses that are not ready are not read."""

    addresses: list[EndpointAddress] | None = None
    ports: list[EndpointPort] | None = None


class Endpoints(Part, frozen=True):
    """Endpoints of the core group, v1."""

    metadata: ObjectMeta
    subsets: list[EndpointSubset] | None = None


Object = Service | EndpointSlice | Endpoints


def slices_of(endpoints: Endpoints) -> list[EndpointSlice]:
    """The same as EndpointSlices would have it: one for each subset and IP family."""
    slices = []
    for subset in endpoints.subsets or ():
        for family in ("IPv4", "IPv6"):
            found = [
                Endpoint([address.ip], target_ref=address.target_ref)
                for address in subset.addresses or ()
                if (":" in address.ip) == (family == "IPv6")
            ]
            if found:
                slices.append(EndpointSlice(endpoints.metadata, family, found, subset.ports))
    return slices
