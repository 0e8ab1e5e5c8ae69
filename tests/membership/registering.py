"""A data plane in this process on which agents register themselves, and what they register with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx
import yaml

from gateway.admission import ReplayMemory
from gateway.control.config import ClientAuth, Identity
from gateway.control.tls import TlsContexts
from gateway.decision import Snapshot
from gateway.leases import LeaseMemory, LeaseSpec
from gateway.membership.health import Health, HealthSpec
from gateway.membership.registration_api import Registrations
from gateway.membership.registration_source import RegistrationSource
from gateway.membership.registration_store import RegistrationMemory, RegistrationStore
from gateway.policy import PolicySet
from gateway.policy.load import load_all, load_policies
from gateway.policy.membership import MembershipPolicySet
from gateway.proxy.clocks import Clocks
from gateway.proxy.downstream import DownstreamLimits
from gateway.proxy.listener import Listener
from gateway.proxy.local import LocalRequests
from gateway.proxy.plane import DataPlane
from gateway.proxy.retries import RetryLimits
from gateway.proxy.upstream import UpstreamLimits
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recent import Recent
from gateway.telemetry.telemetry import Telemetry
from gateway.telemetry.tracing import Tracing
from tests.conftest import POLICY, client_context
from tests.waiting import eventually

AGENTS = "spiffe://mesh.local/ns/agents/sa"
EXECUTOR = f"{AGENTS}/executor"
BODY = {"address": "127.0.0.1:8080", "capabilities": ["code.execute"]}
RULE: dict[str, Any] = {
    "name": "agents",
    "from": [f"{AGENTS}/*"],
    "names": ["executor-*", "coder-*"],
    "capabilities": ["code.*"],
    "maxTrust": 0.9,
    "labels": {"tier": "sandbox"},
    "maxLease": "1m",
}


def membership(*rules: dict[str, Any]) -> MembershipPolicySet:
    """The policies that have `rules`."""
    document = {
        "apiVersion": "phoenixflight.io/v1",
        "kind": "MembershipPolicy",
        "metadata": {"name": "test"},
        "spec": {"rules": list(rules)},
    }
    return MembershipPolicySet(load_all({"test.yaml": yaml.safe_dump(document)}).membership)


class Registering:
    """A listener with mTLS, and what is registered there."""

    def __init__(
        self, certs: Path, store: RegistrationStore, port: int = 0, client_auth: ClientAuth = ClientAuth.REQUIRE
    ) -> None:
        self.certs = certs
        self.policies = membership(RULE)
        self.reserved: set[str] = set()
        self.changes = 0
        self._trust = PolicySet(load_policies({"test.yaml": yaml.safe_dump(POLICY)}))
        identity = Identity(
            certificate=certs / "gateway.pem", key=certs / "gateway-key.pem", trust_bundle=certs / "ca.pem"
        )
        tls = TlsContexts(identity, None)
        self.store = store
        self.source = RegistrationSource(
            store, self._changed, card_context=lambda agent: TlsContexts(identity, None).client(agent)
        )
        self.registrations = Registrations(
            store, policies=lambda: self.policies, taken=lambda name: name in self.reserved
        )
        loop = asyncio.get_running_loop()
        telemetry = Telemetry(Metrics(), Tracing(), Recent())
        self.plane = DataPlane(
            loop,
            telemetry,
            upstream_context=tls.client,
            tunnel_context=lambda _: None,
            replay=ReplayMemory(),
            health=Health(HealthSpec(), on_change=self._changed, clock=loop.time, rng=Random(1), context=tls.client),
            leases=LeaseMemory(LeaseSpec()),
            upstream_limits=UpstreamLimits(),
            clocks=Clocks(),
            retries=RetryLimits(),
        )
        self.plane.local = LocalRequests(loop, (self.registrations,), telemetry.defect)
        self.listener = Listener(
            self.plane,
            name="mesh",
            host="127.0.0.1",
            port=port,
            context=lambda: tls.server(client_auth),
            limits=DownstreamLimits(),
        )
        self.plane.listeners = [self.listener]
        self._changed()

    def _changed(self) -> None:
        self.changes += 1
        self.plane.snapshot = Snapshot(f"r{self.changes}", self._trust, tuple(self.source.agents.values()))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.listener.port}"

    def client(self, name: str | None = "executor", *, http2: bool = False) -> httpx.AsyncClient:
        """An agent's client, with its certificate."""
        return httpx.AsyncClient(
            base_url=self.url, verify=client_context(self.certs, name), http2=http2, timeout=10, trust_env=False
        )


@asynccontextmanager
async def registering(
    certs: Path,
    store: RegistrationStore | None = None,
    *,
    port: int = 0,
    client_auth: ClientAuth = ClientAuth.REQUIRE,
) -> AsyncIterator[Registering]:
    """A running data plane on which agents can register."""
    running = Registering(certs, store or RegistrationMemory(sweep_interval_s=0.02), port, client_auth)
    await running.plane.start()
    following = asyncio.create_task(running.source.run())
    try:
        yield running
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await running.plane.stop(1, asyncio.Event())


async def soon(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """The first true value of `condition`, asked again until `timeout_s` has passed."""
    return await asyncio.to_thread(eventually, condition, timeout_s)
