"""The membership source whose members are endpoints of Services in Kubernetes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lightkube.config.kubeconfig import SERVICE_ACCOUNT

from gateway.membership.kubernetes.api import ENDPOINTS, SERVICES, SLICES, Api, Event, Kind, load_config
from gateway.membership.kubernetes.catalog import Catalog
from gateway.membership.kubernetes.objects import Key, Object, Service
from gateway.membership.kubernetes.spec import KubernetesSpec
from gateway.membership.kubernetes.watch import Watch
from gateway.routing import Agent

GATHER_S: Final = 0.005
"""From a change to what follows from it; what changes meanwhile is part of it."""

log = logging.getLogger(__name__)


class KubernetesSource:
    """Watches Services that say they are agents, and their endpoints.

    While the API server cannot be reached, the agents stay as they were.
    """

    name: Final = "kubernetes"

    def __init__(
        self,
        spec: KubernetesSpec,
        on_change: Callable[[], None],
        *,
        service_account: str = SERVICE_ACCOUNT,
        clock: Callable[[], float] = time.monotonic,
        entropy: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is asked yet.

        Args:
            spec: where the API server is, and which namespaces count.
            on_change: called on the event loop after `agents` or `problems` changed.
            service_account: the folder with a pod's token, roots and namespace.
            clock: seconds; only differences count.
            entropy: a number from 0 to 1, for waits.

        """
        self.agents: Mapping[str, Agent] = {}
        self.problems: Mapping[str, str] = {}
        self._on_change = on_change
        self._catalog = Catalog(spec.prefer_ip_family)
        self._unread: dict[tuple[type[Object], Key], str] = {}
        self._settling: asyncio.TimerHandle | None = None
        self._watches = [
            Watch(Api(lambda: load_config(spec, service_account)), kinds, namespace, self, clock=clock, entropy=entropy)
            for namespace in spec.namespaces or ("",)
            for kinds in ((SERVICES,), (SLICES, ENDPOINTS))
        ]

    async def run(self) -> None:
        """Follow what changes, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for watch in self._watches:
                    tasks.create_task(watch.run())
        finally:
            if self._settling is not None:
                self._settling.cancel()
                self._settling = None

    def replace(self, namespace: str, kind: Kind[Any], objects: Sequence[Object], unread: Mapping[Key, str]) -> None:
        """All there is of a kind in a namespace, or in all: what is not among it is gone."""
        listed = {found.metadata.key for found in objects}
        for key in self._catalog.keys(kind.model):
            if key not in listed and namespace in ("", key.namespace):
                self._catalog.remove(kind.model, key)
        for found in objects:
            self._catalog.put(found)
        for model, key in list(self._unread):
            if (model is Service) == (kind.model is Service) and namespace in ("", key.namespace):
                del self._unread[model, key]
        self._unread.update(((kind.model, key), why) for key, why in unread.items())
        self._settle_soon()

    def apply(self, kind: Kind[Any], event: Event) -> None:
        """One object was added, modified or deleted."""
        key = event.metadata.key
        self._unread.pop((kind.model, key), None)
        if event.found is not None:
            self._catalog.put(event.found)
        else:
            self._catalog.remove(kind.model, key)
        if event.problem:
            self._unread[kind.model, key] = event.problem
        self._settle_soon()

    def _settle_soon(self) -> None:
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(GATHER_S, self._settle)

    def _settle(self) -> None:
        self._settling = None
        self._catalog.settle()
        problems = {**self._catalog.problems, **{str(key): why for (_, key), why in self._unread.items()}}
        if self._catalog.agents is self.agents and problems == self.problems:
            return
        for name, why in problems.items():
            if self.problems.get(name) != why:
                log.warning("kubernetes %s: %s", name, why)
        self.agents, self.problems = self._catalog.agents, problems
        self._on_change()

    def status(self) -> dict[str, object]:
        """How each watch is, as JSON values."""
        return {
            "listed": self.complete,
            "members": len(self.agents),
            "problems": dict(self.problems),
            "watches": [watch.status() for watch in self._watches],
        }

    @property
    def complete(self) -> bool:
        """Whether every watch has had its first list, and may go on from it."""
        return all(watch.listed and not watch.lacking for watch in self._watches)

    @property
    def lacking(self) -> str:
        """The rights without which it is not complete, by verb and resource."""
        return ", ".join(watch.lacking for watch in self._watches if watch.lacking)

    def watches(self) -> dict[str, tuple[str, float]]:
        """State of each watch, and seconds since its last event or bookmark, by what it is of and where."""
        told = [watch.status() for watch in self._watches]
        return {
            f"{each['kind']} {each['namespace'] or '*'}": (str(each["state"]), float(str(each["ageSeconds"])))
            for each in told
        }
