"""The running gateway: built from one configuration, reloaded as its files change, drained on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from time import perf_counter

from gateway.admin.access import Access
from gateway.admin.app import make_app
from gateway.admin.live import Live, Now
from gateway.admin.server import AdminServer
from gateway.authority import Revocations
from gateway.control import snapshot as snapshots
from gateway.control.config import ClientAuth, GatewaySpec, ListenerSpec
from gateway.control.membership import Membership
from gateway.control.reload import (
    GATHER_S,
    Attempt,
    FlipGuard,
    ReloadEvent,
    Status,
    attempt,
    beside_the_loop,
    told,
    watch,
)
from gateway.control.shared import shared
from gateway.control.tls import TlsContexts
from gateway.control.worker import Inherited
from gateway.decision import Snapshot
from gateway.membership.file import ListedAgents
from gateway.overload import Caps
from gateway.proxy.clocks import Clocks
from gateway.proxy.downstream import DownstreamLimits
from gateway.proxy.handshakes import ArrivalLimits
from gateway.proxy.listener import Listener
from gateway.proxy.local import LocalRequests
from gateway.proxy.once import OnceOnly
from gateway.proxy.plane import DataPlane
from gateway.proxy.retries import RetryLimits
from gateway.proxy.sockets import listening
from gateway.proxy.under_way import begun_between
from gateway.proxy.upstream import UpstreamLimits
from gateway.recorder import Reader, Recorder
from gateway.recorder.heads import load_signer
from gateway.revocations import Book
from gateway.routing import Agent
from gateway.telemetry.counters import Counters, Reading
from gateway.telemetry.ledger import LedgerMetrics
from gateway.telemetry.membership import MembershipMetrics, Readings
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.otlp import access_log as logged
from gateway.telemetry.otlp import access_log_readings, tracing_readings
from gateway.telemetry.otlp import tracing as traced
from gateway.telemetry.overload import OverloadMetrics
from gateway.telemetry.recent import Recent
from gateway.telemetry.recorder import RecorderMetrics
from gateway.telemetry.revocations import RevocationMetrics
from gateway.telemetry.telemetry import Telemetry

log = logging.getLogger(__name__)

OPEN_AFTER_S = 10.0
"""A packet that is under way for longer is recorded as open, before its end is."""
OPEN_INTERVAL_S = 2.0


class Gateway:
    """Owns the data plane, the admin port and the watcher."""

    def __init__(self, config: GatewaySpec, inherited: Inherited | None = None) -> None:
        """Read and check everything; `inherited` makes it one worker of several.

        Raises:
            DocumentError: policies or members are not valid.
            TlsError: certificates cannot be used.

        """
        self.config = config
        self._inherited = inherited
        self._changed = asyncio.Event()
        self.plane: DataPlane | None = None
        self._tls = TlsContexts.load(config.identity, config.connect_authority)
        self._loaded = loaded = snapshots.build(snapshots.read(config), config)
        self._snapshot = loaded.snapshot
        self.shared = shared(config)
        revoked = snapshots.read_revoked(config)
        self.revocations = Book(
            self.shared.revocations, time.time, self._put_revocations_in_force, keep=config.revocations.keep
        )
        """What is revoked."""
        self.revocations.list(revoked)
        self.membership = Membership(
            config,
            self._changed.set,
            store=self.shared.registrations,
            policies=lambda: self._loaded.membership,
            context=lambda agent: self._tls.client(agent),
            new_context=lambda agent: self._tls.new_client(agent),
        )
        now = datetime.now(UTC)
        self.status = Status(self._snapshot.revision, now, loaded.sources.files, told(loaded.warnings), now)
        self.status.history.append(ReloadEvent(now, self._snapshot.revision))
        _log_warnings(self.status)
        _log_lists(self._tls)
        self.metrics = Metrics(config.telemetry.metrics.principal_group)
        self.metrics.ready = lambda: self.ready and not self.membership.waiting
        self.metrics.certificate_lives = lambda: self._tls.lives()
        self.metrics.revision = self._snapshot.revision
        self.member_metrics = MembershipMetrics(
            Readings(
                snapshot=lambda: self._snapshot,
                fates=lambda: self.shared.leases.counts,
                migrations=self._migrations,
                ejections=lambda: self.membership.health.ejections,
                registrations=lambda: self.membership.registrations.outcomes,
                problems=lambda: len(self.membership.problems),
                watches=self.membership.watches,
            )
        )
        self.metrics.registry.register(self.member_metrics)
        self.metrics.registry.register(OverloadMetrics(lambda: self.plane))
        self.metrics.registry.register(
            RevocationMetrics(
                lambda: {kind.value: count for kind, count in self.revocations.counts().items()},
                lambda: self.revocations.age_s,
            )
        )
        self.metrics.registry.register(
            Counters(
                (
                    Reading(
                        "phoenixflight_connection_clocks",
                        "Connections that a clock has ended, or asked to end, by whose they were.",
                        ("side", "clock"),
                        self._clocks,
                    ),
                    Reading(
                        "phoenixflight_retries",
                        "Packets that an agent failed, by how, and by what came of asking another.",
                        ("reason", "outcome"),
                        self._retries,
                    ),
                )
            )
        )
        self.recent = Recent()
        self.live = Live(self._now)
        self.recorded = Reader(config.recorder.folder) if config.recorder is not None else None
        """What the flight recorder has, where there is one."""
        self.ready = False
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._files_changed = False
        self._insisted = False
        self._waiting: list[asyncio.Future[tuple[str, ...]]] = []
        """For whatever has changed by now to be in force."""

    @property
    def tls(self) -> TlsContexts:
        """What new connections begin with."""
        return self._tls

    @property
    def snapshot(self) -> Snapshot:
        """What is in force."""
        return self._snapshot

    @property
    def policy_files(self) -> Mapping[str, str]:
        """Where each policy stands, by its name."""
        return self._loaded.policy_files

    @property
    def unready(self) -> str:
        """Why it should not be sent packets; empty when it should."""
        if not self.ready:
            return "starting or draining"
        if self.plane is not None and self.plane.door.unrecorded:
            return "packets cannot be recorded"
        waiting = self.membership.waiting
        return f"no list of members yet from {waiting}" if waiting else ""

    def _now(self) -> Now:
        plane, ready = self.plane, not self.unready
        if plane is None:
            return Now(ready, self.status.revision, 0, 0, 0.0, 0)
        connections = sum(len(each.connections) for each in plane.listeners)
        monitor = plane.monitor
        return Now(ready, self.status.revision, plane.in_flight, connections, monitor.lag_s, monitor.level)

    def _clocks(self) -> dict[tuple[str, str], int]:
        counts = self.plane.lifetimes.counts if self.plane is not None else {}
        return {(side, clock.value): count for (side, clock), count in counts.items()}

    def _retries(self) -> dict[tuple[str, str], int]:
        counts = self.plane.retries.counts if self.plane is not None else {}
        return {(cause.value, fate.value): count for (cause, fate), count in counts.items()}

    def _migrations(self) -> dict[str, int]:
        outcomes = self.plane.placement.migrations.outcomes if self.plane is not None else {}
        return {outcome.value: count for outcome, count in outcomes.items()}

    async def run(self) -> bool:
        """Serve until told to stop; ``False`` when the drain had to cut exchanges off.

        Raises:
            OSError: an address or a file cannot be opened.

        """
        config = self.config
        loop = asyncio.get_running_loop()
        spec = config.telemetry
        recorder = self._recorder(loop)
        tracing, access_log = traced(spec.tracing), logged(spec, loop)
        for readings in (tracing_readings(tracing), access_log_readings(access_log)):
            self.metrics.registry.register(Counters(readings))
        telemetry = Telemetry(
            self.metrics,
            tracing,
            self.recent,
            access_log,
            sinks=(self.live.add, *((recorder.add,) if recorder is not None else ())),
        )
        limits = config.limits
        plane = self.plane = DataPlane(
            loop,
            telemetry,
            upstream_context=lambda agent: self._tls.client(agent),
            tunnel_context=lambda host: self._tls.tunnel(host),
            replay=self.shared.replay,
            health=self.membership.health,
            leases=self.shared.leases,
            bound=config.ring.bound,
            upstream_limits=UpstreamLimits(
                connect_timeout_s=limits.connect_timeout_s,
                idle_timeout_s=limits.upstream_idle_timeout_s,
                max_age_s=limits.upstream_max_connection_age_s,
                ping_after_s=limits.upstream_ping_after_s,
                ping_timeout_s=limits.upstream_ping_timeout_s,
                max_connections=limits.max_connections_per_agent,
                max_pending=limits.max_pending_per_agent,
                max_in_flight=limits.max_in_flight_per_agent,
            ),
            caps=Caps(limits.max_in_flight_per_capability, limits.max_pending_per_capability),
            clocks=Clocks(
                body_s=limits.body_timeout_s,
                body_rate=limits.min_body_rate,
                response_s=limits.response_timeout_s,
                idle_s=limits.stream_idle_timeout_s,
                ceiling_s=limits.max_stream_duration_s,
                keep_alive_s=limits.sse_keep_alive_s,
            ),
            retries=RetryLimits(
                attempts=config.retries.attempts,
                budget_percent=config.retries.budget_percent,
                budget_floor=config.retries.budget_floor,
                backoff_s=config.retries.backoff_s,
            ),
            max_body_bytes=limits.max_body_bytes or sys.maxsize,
            max_timeout_s=limits.max_timeout_s,
            overload=config.overload,
        )
        plane.snapshot = self._snapshot
        if config.ledger.capabilities:
            once = plane.once = OnceOnly(loop, self.shared.ledger, config.ledger, telemetry.defect)
            self.metrics.registry.register(
                LedgerMetrics(
                    lambda: {event.value: count for event, count in once.counts.items()},
                    lambda: once.ledger.entries,
                    lambda: once.ledger.size,
                )
            )
        plane.revoke(self._tls.revoked)
        plane.local = LocalRequests(loop, self.membership.registrations, telemetry.defect)
        self.metrics.in_flight = lambda: plane.in_flight
        self.metrics.tasks = lambda: len(asyncio.all_tasks(loop))
        plane.listeners = [self._listener(plane, spec) for spec in config.listeners]
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.insist)
        if self._inherited is not None:
            loop.add_reader(0, self._orphaned)
        admin = self._admin()
        await self.revocations.sync()  # before anybody is let in
        await plane.start()
        self._changed.set()  # the files' agents are to be followed from now on, not only once something changes
        try:
            async with asyncio.TaskGroup() as tasks:
                stop_admin = asyncio.Event()
                tasks.create_task(admin.serve(stop_admin))
                lasting = self._keep_up(), self.membership.run(), self.shared.leases.run(), self.shared.ledger.run()
                background = *lasting, self.live.run(), self.revocations.run()
                following = [tasks.create_task(each) for each in background]
                tasks.create_task(watch(config, self.reload, self._stop))
                if recorder is not None:
                    following.append(tasks.create_task(_trace(plane, recorder)))
                self.ready = True
                where = ", ".join(f"{one.name} {one.host}:{one.port}" for one in plane.listeners)
                log.info("ready: %s, admin %s:%d; revision %s", where, *config.admin.address, self._snapshot.revision)
                await self._stop.wait()
                self.ready = False
                log.info("not ready any more; draining in %g s", limits.drain_delay_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._force.wait(), limits.drain_delay_s)
                log.info("draining for at most %g s", limits.drain_timeout_s)
                clean = await plane.stop(limits.drain_timeout_s, self._force)
                for task in following:
                    task.cancel()
                await asyncio.gather(*following, return_exceptions=True)
                await self.shared.close()
                stop_admin.set()
        finally:
            if recorder is not None:
                recorder.close()
            await telemetry.close(self._force)
        why = "a second signal" if self._force.is_set() else "the drain timeout"
        log.info("stopped" if clean else f"stopped: {why} cut off open exchanges")
        return clean

    def _recorder(self, loop: asyncio.AbstractEventLoop) -> Recorder | None:
        """The flight recorder, which begins to record.

        Raises:
            OSError: its folder cannot be written.

        """
        spec = self.config.recorder
        if spec is None:
            return None

        def refuse(refusing: bool) -> None:
            assert self.plane is not None
            self.plane.door.unrecorded = refusing

        signer = load_signer(spec.key.read_bytes()) if spec.key is not None else None
        recorder = Recorder(loop, spec, signer, refuse, clock=time.time, entropy=os.urandom)
        self.metrics.registry.register(RecorderMetrics(recorder))
        return recorder

    def stop(self) -> None:
        """Drain and end; the second time, end at once."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    def _orphaned(self) -> None:
        """Standard input has ended: the supervisor is gone, and with it whoever would replace this worker."""
        asyncio.get_running_loop().remove_reader(0)
        if not self._stop.is_set():
            log.error("the supervisor is gone")
            self.stop()

    def _admin(self) -> AdminServer:
        """The admin port's server.

        Raises:
            OSError: the address cannot be bound.

        """
        if self._inherited is not None:
            return AdminServer(make_app(self), [socket.socket(fileno=self._inherited.admin)])
        spec = self.config.admin
        sockets = listening(*spec.address, reuse_port=self.config.reuse_port)
        access = Access(spec.allow, spec.token_file)
        context = (lambda: self._tls.server(ClientAuth.OPTIONAL)) if spec.tls else None
        return AdminServer(make_app(self, access), sockets, access=access, context=context)

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
            sockets=self._inherited.sockets(spec.name) if self._inherited is not None else (),
            reuse_port=self.config.reuse_port,
            limits=DownstreamLimits(
                handshake_timeout_s=limits.handshake_timeout_s,
                headers_timeout_s=limits.headers_timeout_s,
                idle_timeout_s=limits.idle_timeout_s,
                max_age_s=limits.max_connection_age_s,
                unread_s=limits.body_timeout_s,
                max_header_bytes=limits.max_header_bytes,
                max_headers=limits.max_headers,
                max_concurrent_streams=limits.max_concurrent_streams,
                arrivals=ArrivalLimits(
                    max_connections=limits.max_connections,
                    max_connections_per_address=limits.max_connections_per_address,
                    max_handshakes_per_address=limits.max_handshakes_per_address,
                    handshakes_per_second=limits.handshakes_per_second,
                ),
            ),
        )

    def reload(self) -> None:
        """Have every file read again, soon; what is not valid changes nothing, and is told in `status`."""
        self._files_changed = True
        self._changed.set()

    def insist(self) -> asyncio.Future[tuple[str, ...]]:
        """Reload, whatever it changes for the packets that came lately; gives the problems, once it is done."""
        self._insisted = True
        self.reload()
        return self.turned()

    def turned(self) -> asyncio.Future[tuple[str, ...]]:
        """Is done when all that has changed by now is in force; gives the problems of files, if they were read."""
        waiting: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._changed.set()
        return waiting

    async def _keep_up(self) -> None:
        """Put in force what changes, of files and of members: one thing after the other, and only the newest."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER_S)
            self._changed.clear()
            waiting, self._waiting = self._waiting, []
            problems: tuple[str, ...] = ()
            if self._files_changed:
                self._files_changed = False
                found = await asyncio.to_thread(self._read)
                self._adopt(found)
                problems = found.problems
            try:
                await self._turn_members()
            except Exception:
                # What is in force serves on, as after files that cannot be used.
                self.metrics.defects += 1
                log.exception("members could not be brought up to date")
            for each in waiting:
                if not each.done():
                    each.set_result(problems)

    def _read(self) -> Attempt:
        max_flips = self.config.reload.max_flips
        insisted, self._insisted = self._insisted, False
        guard = None if max_flips is None or insisted else FlipGuard(max_flips, self.recent.latest())
        return attempt(self.config, self._snapshot, guard, self._everyone)

    def _everyone(self, listed: ListedAgents) -> tuple[Agent, ...]:
        return self.membership.observed(self.membership.composed(listed))

    async def _turn_members(self) -> None:
        """Put in force who the members are now."""
        loaded, snapshot = self._loaded, self._snapshot

        def composed_now() -> tuple[Agent, ...]:
            with beside_the_loop():
                return self.membership.composed(loaded.listed)

        composed = await asyncio.to_thread(composed_now)
        self.membership.follow(loaded.listed, composed)
        agents = self.membership.observed(composed)

        def turned() -> tuple[Snapshot, float]:
            begun = perf_counter()
            with beside_the_loop():
                return snapshot.with_agents(agents), perf_counter() - begun

        after, build_s = await asyncio.to_thread(turned)
        if after is not snapshot:
            self._put_in_force(after)

            def told() -> None:
                with beside_the_loop():
                    self.member_metrics.turned(snapshot, after, build_s)

            await asyncio.to_thread(told)

    def _put_in_force(self, snapshot: Snapshot) -> None:
        # Made in a thread: what is revoked may have changed meanwhile.
        self._snapshot = snapshot = snapshot.with_revocations(self.revocations.current)
        if self.plane is not None:
            self.plane.snapshot = snapshot

    def _put_revocations_in_force(self, revocations: Revocations) -> None:
        self._snapshot = self._snapshot.with_revocations(revocations)
        if self.plane is not None:
            self.plane.snapshot = self._snapshot

    def _put_in_use(self, tls: TlsContexts) -> None:
        self._tls = tls
        if self.plane is not None:
            self.plane.revoke(tls.revoked)
        _log_lists(tls)

    def _adopt(self, found: Attempt) -> None:
        """Put what is good in force; what is not changes nothing, and is told."""
        now = datetime.now(UTC)
        status = self.status
        if found.defect is not None:
            self.metrics.defects += 1
            log.error("reading the files failed", exc_info=found.defect)
        if found.tls is not None:
            self._put_in_use(found.tls)
            status.certificates_since = now
        if found.revoked is not None:
            self.revocations.list(found.revoked)
        if found.loaded is not None:
            self._loaded = found.loaded
            self._put_in_force(found.loaded.snapshot)
            self.metrics.revision = status.revision = self._snapshot.revision
            status.since = now
            status.files = found.loaded.sources.files
            status.warnings = told(found.loaded.warnings)
        if found.loaded is not None or not (found.problems or self.metrics.last_reload_ok):
            status.history.append(ReloadEvent(now, status.revision))
            log.info("revision %s is in force", status.revision)
            _log_warnings(status)
        if found.problems:
            self.metrics.reload_failures += 1
            status.last_refused = ReloadEvent(now, None, found.problems)
            status.history.append(status.last_refused)
            log.error("reload refused, revision %s is in force:\n%s", status.revision, "\n".join(found.problems))
        self.metrics.last_reload_ok = not found.problems


async def _trace(plane: DataPlane, recorder: Recorder) -> None:
    """Have what is under way for long leave a trace before it has ended, each once."""
    until = perf_counter() - OPEN_AFTER_S
    while True:
        await asyncio.sleep(OPEN_INTERVAL_S)
        after, until = until, perf_counter() - OPEN_AFTER_S
        recorder.add_open(begun_between(plane, after, until))


def _log_lists(tls: TlsContexts) -> None:
    warnings = tls.warnings(datetime.now(UTC))
    if warnings:
        log.warning("certificates:\n%s", "\n".join(warnings))


def _log_warnings(status: Status) -> None:
    if status.warnings:
        log.warning("revision %s:\n%s", status.revision, "\n".join(status.warnings))
