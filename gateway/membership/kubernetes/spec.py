"""What is told about Kubernetes, in YAML."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from gateway.documents import ErrorAt, Spec


class IpFamily(Enum):
    """A family of addresses, as EndpointSlices call it."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"


class KubernetesSpec(Spec):
    """Where the API server is, and what of it counts."""

    namespaces: tuple[Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")], ...] = Field(
        default=(), max_length=100
    )
    """Services of these count; of all, if none is named, which needs a ClusterRole."""
    kubeconfig: Path | None = None
    """How to reach the API server; without it, as a pod in the cluster: by its service account."""
    context: str | None = None
    """Of the kubeconfig; its current one if not told."""
    prefer_ip_family: IpFamily = IpFamily.IPV4
    """Which address is used of a pod that has both."""

    @model_validator(mode="after")
    def _makes_sense(self) -> KubernetesSpec:
        if self.context is not None and self.kubeconfig is None:
            raise ErrorAt("a context is one of a kubeconfig", "context")
        if len(set(self.namespaces)) < len(self.namespaces):
            raise ErrorAt("a namespace stands here twice", "namespaces")
        return self
