"""Services and slices as tests write them, and a source that runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gateway.membership.kubernetes import KubernetesSpec
from gateway.membership.kubernetes.source import KubernetesSource
from gateway.routing import Agent
from tests.kube_api import KubeApi, Object
from tests.kube_api.real import RealApi

READY = {"ready": True, "serving": True, "terminating": False}
UNREADY = {"ready": False, "serving": False, "terminating": False}
ENDING = {"ready": False, "serving": True, "terminating": True}


def service(
    name: str = "coder",
    *,
    namespace: str = "agents",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    ports: list[Object] | None = None,
    **spec: Any,
) -> Object:
    """A Service that is an agent and can ``code.write``, if not told otherwise."""
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"phoenixflight.io/agent": "true", **(labels or {})},
            "annotations": {"phoenixflight.io/capabilities": "code.write", **(annotations or {})},
        },
        "spec": {"ports": ports or [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}], **spec},
    }


def pod(
    name: str | None,
    address: str,
    conditions: Mapping[str, bool | None] | None = None,
    *,
    zone: str = "",
    uid: str = "",
) -> Object:
    """An endpoint; without a name, one that no pod stands behind."""
    found: Object = {"addresses": [address], "conditions": dict(READY if conditions is None else conditions)}
    if name is not None:
        found["targetRef"] = {"kind": "Pod", "namespace": "agents", "name": name, "uid": uid or f"uid-{name}"}
    if zone:
        found["zone"] = zone
    return found


def slice_of(
    owner: str,
    *endpoints: Object,
    suffix: str = "a",
    namespace: str = "agents",
    family: str = "IPv4",
    ports: list[Object] | None = None,
) -> Object:
    """An EndpointSlice of the Service `owner`."""
    labels = {"kubernetes.io/service-name": owner, "phoenixflight.io/agent": "true"}
    return {
        "metadata": {"name": f"{owner}-{suffix}", "namespace": namespace, "labels": labels},
        "addressType": family,
        "endpoints": list(endpoints) or None,
        "ports": ports or [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def endpoints(owner: str, *found: Object, namespace: str = "agents", not_ready: list[Object] | None = None) -> Object:
    """The Endpoints of a Service; `found` are addresses."""
    subset = {"addresses": list(found), "notReadyAddresses": not_ready, "ports": [{"name": "http", "port": 8080}]}
    return {"metadata": {"name": owner, "namespace": namespace}, "subsets": [subset]}


class Follower:
    """A source, and how often it told of a change."""

    def __init__(self, api: KubeApi | RealApi, *, in_cluster: bool = False, **spec: Any) -> None:
        self.changes = 0
        kubeconfig = None if in_cluster else api.kubeconfig
        self.source = KubernetesSource(
            KubernetesSpec(kubeconfig=kubeconfig, **spec), self._changed, service_account=str(api.service_account)
        )

    def _changed(self) -> None:
        self.changes += 1

    @property
    def agents(self) -> Mapping[str, Agent]:
        return self.source.agents

    @property
    def problems(self) -> Mapping[str, str]:
        return self.source.problems

    def watch(self, kind: str) -> dict[str, Any]:
        """The status of the watch for a kind."""
        watches: Any = self.source.status()["watches"]
        return next(each for each in watches if each["kind"] == kind)

    def hosts(self) -> dict[str, str]:
        return {name: agent.host for name, agent in self.agents.items()}

    async def until(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> float:
        """Wait for `condition`; how long it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < timeout_s, f"not in time: {self.source.status()} {dict(self.agents)}"
            await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def watching(self, timeout_s: float = 10.0) -> None:
        """Wait until both watches are on."""

        def on() -> bool:
            watches: Any = self.source.status()["watches"]
            return all(each["state"] == "watching" and each["listed"] for each in watches)

        await self.until(on, timeout_s)


@asynccontextmanager
async def following(api: KubeApi | RealApi, **options: Any) -> AsyncIterator[Follower]:
    """A source that runs."""
    follower = Follower(api, **options)
    running = asyncio.create_task(follower.source.run())
    try:
        yield follower
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
