"""The running gateway: built from one configuration, reloaded as its files change, drained on a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from watchfiles import awatch

from gateway.admin.app import AdminServer
from gateway.admission import ReplayGuard, ReplayMemory
from gateway.control import snapshot as snapshots
from gateway.control.config import GatewaySpec, ListenerSpec, RedisSpec
from gateway.control.tls import TlsContexts, TlsError
from gateway.decision import Snapshot
from gateway.documents import DocumentError, Problem
from gateway.proxy.downstream import DownstreamLimits
from gateway.proxy.listener import Listener
from gateway.proxy.plane import DataPlane
from gateway.proxy.upstream import UpstreamLimits
from gateway.telemetry.lines import LineWriter
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recent import Recent
from gateway.telemetry.telemetry import Telemetry
from gateway.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

DEBOUNCE_MS = 200


@dataclass(slots=True)
class Status:
    """What ``/status`` tells: what is in force, and what was refused last."""

    revision: str
    since: datetime
    files: list[str]
    refused_at: datetime | None = None
    refused_problems: list[str] = field(default_factory=list)
    certificates_since: datetime | None = None


def _shared_replay(redis: RedisSpec) -> ReplayGuard:
    """The memory that replicas share.

    Raises:
        DocumentError: the client library is not installed.

    """
    try:
        from gateway.admission.redis_replay import RedisReplay
    except ImportError:
        message = "spec.redis needs the extra redis: pip install 'phoenixflight-gateway[redis]'"
        raise DocumentError([Problem("gateway.yaml", 1, 1, message)]) from None
    return RedisReplay(redis.url)


class Gateway:
    """Owns the data plane, the admin port and the watcher."""

    def __init__(self, config: GatewaySpec) -> None:
        """Read and check everything.

        Raises:
            DocumentError: policies or members are not valid.
            TlsError: certificates cannot be used.

        """
        self.config = config
        self._tls = TlsContexts(config.identity, config.connect_authority)
        sources = snapshots.read(config)
        self._snapshot = snapshots.build(sources, config)
        now = datetime.now(UTC)
        self.status = Status(self._snapshot.revision, now, sources.files, certificates_since=now)
        self.metrics = Metrics()
        self.metrics.revision = self._snapshot.revision
        self.recent = Recent()
        self.replay: ReplayGuard = ReplayMemory() if config.redis is None else _shared_replay(config.redis)
        self.ready = False
        self.plane: DataPlane | None = None
        self._stop = asyncio.Event()

    @property
    def snapshot(self) -> Snapshot:
        """What is in force."""
        return self._snapshot

    async def run(self) -> bool:
        """Serve until told to stop; ``False`` when the drain had to cut exchanges off.

        Raises:
            OSError: an address or a file cannot be opened.

        """
        config = self.config
        loop = asyncio.get_running_loop()
        told = config.telemetry
        log_file = None if told.access_log == "stdout" else Path(told.access_log)
        telemetry = Telemetry(
            self.metrics,
            Tracing(told.tracing.otlp_endpoint, told.tracing.sample_ratio) if told.tracing else Tracing(),
            self.recent,
            LineWriter(loop, "access log", log_file) if told.access_log != "none" else None,
            LineWriter(loop, "recording", told.recording) if told.recording else None,
        )
        limits = config.limits
        plane = self.plane = DataPlane(
            loop,
            telemetry,
            upstream_context=lambda agent: self._tls.client(agent),
            tunnel_context=lambda host: self._tls.tunnel(host),
            replay=self.replay,
            upstream_limits=UpstreamLimits(
                connect_timeout_s=limits.connect_timeout_s,
                idle_timeout_s=limits.upstream_idle_timeout_s,
                max_connections=limits.max_connections_per_agent,
                max_pending=limits.max_pending_per_agent,
            ),
            max_timeout_s=limits.max_timeout_s,
        )
        plane.snapshot = self._snapshot
        self.metrics.in_flight = lambda: plane.in_flight
        self.metrics.members = self._members_by_state
        plane.listeners = [self._listener(plane, spec) for spec in config.listeners]
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        await plane.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                stop_admin = asyncio.Event()
                admin = AdminServer(self, config.admin.address)
                tasks.create_task(admin.serve(stop_admin))
                watcher = tasks.create_task(self._watch())
                self.ready = True
                where = ", ".join(f"{one.name} {one.host}:{one.port}" for one in plane.listeners)
                log.info("ready: %s; revision %s", where, self._snapshot.revision)
                await self._stop.wait()
                self.ready = False
                log.info("draining")
                clean = await plane.stop(limits.drain_timeout_s)
                watcher.cancel()
                stop_admin.set()
        finally:
            telemetry.close()
        log.info("stopped" if clean else "stopped: the drain timeout cut off open exchanges")
        return clean

    def _listener(self, plane: DataPlane, spec: ListenerSpec) -> Listener:
        limits = self.config.limits
        host, port = spec.address

        def context() -> ssl.SSLContext | None:
            return self._tls.server(spec.client_auth) if spec.tls else None

        return Listener(
            plane,
            name=spec.name,
            host=host,
            port=port,
            context=context,
            assumed_principal=spec.assumed_principal,
            limits=DownstreamLimits(
                headers_timeout_s=limits.headers_timeout_s,
                idle_timeout_s=limits.idle_timeout_s,
                max_header_bytes=limits.max_header_bytes,
                max_concurrent_streams=limits.max_concurrent_streams,
            ),
        )

    def _members_by_state(self) -> dict[str, int]:
        states: dict[str, int] = {}
        for agent in self._snapshot.agents:
            states[agent.state.value] = states.get(agent.state.value, 0) + 1
        return states

    def reload(self) -> None:
        """Read every file again; what is not valid changes nothing, and is told in `status`."""
        now = datetime.now(UTC)
        problems: list[str] = []
        try:
            self._tls = TlsContexts(self.config.identity, self.config.connect_authority)
            self.status.certificates_since = now
        except TlsError as error:
            problems.append(str(error))
        try:
            sources = snapshots.read(self.config)
            if sources.revision != self._snapshot.revision:
                fresh = snapshots.build(sources, self.config)
                self._snapshot = fresh
                if self.plane is not None:
                    self.plane.snapshot = fresh
                self.metrics.revision = self.status.revision = fresh.revision
                self.status.since = now
                self.status.files = sources.files
                log.info("revision %s is in force", fresh.revision)
        except DocumentError as error:
            problems += map(str, error.problems)
        self.metrics.last_reload_ok = not problems
        if problems:
            self.metrics.reload_failures += 1
            self.status.refused_at = now
            self.status.refused_problems = problems
            log.error("reload refused, revision %s stays in force:\n%s", self._snapshot.revision, "\n".join(problems))

    async def _watch(self) -> None:
        config = self.config
        paths = {config.members.parent, config.policies if config.policies.is_dir() else config.policies.parent}
        if config.keys is not None:
            paths.add(config.keys.parent)
        if config.identity is not None:
            identity = config.identity
            paths |= {path.parent for path in (identity.certificate, identity.key, identity.trust_bundle)}
        existing: set[Path] = {path for path in paths if path.is_dir()}
        async for _ in awatch(*existing, debounce=DEBOUNCE_MS, recursive=True, stop_event=self._stop):
            self.reload()
