"""The running gateway: built from one configuration, reloaded as its files change, drained on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import signal
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter

from gateway.admin.access import Access
from gateway.admin.app import make_app
from gateway.admin.live import Live, Now
from gateway.admin.server import AdminServer
from gateway.approvals import Desk, Waiting
from gateway.approvals.webhook import Call
from gateway.authority import Revocations
from gateway.brokering.broker import Broker
from gateway.brokering.exchange import TokenExchanges
from gateway.brokering.secrets import read_secrets
from gateway.brokering.servers import AuthorizationServers
from gateway.brokering.vouching import vouch
from gateway.contexts import Contexts
from gateway.control import snapshot as snapshots
from gateway.control.approval_webhook import Webhook
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
    with_secrets,
)
from gateway.control.shared import shared
from gateway.control.tls import TlsContexts
from gateway.control.tuning import Settings, downstream_limits, plane_tuning
from gateway.control.worker import Inherited
from gateway.decision import Snapshot, uuid7
from gateway.documents import DocumentError
from gateway.handoff import Handoff
from gateway.membership.file import ListedAgents
from gateway.overload import Caps
from gateway.proxy.approvals import Approvals
from gateway.proxy.budgets import Budgets
from gateway.proxy.context_stage import ContextStage
from gateway.proxy.contexts import ContextRequests
from gateway.proxy.listener import Listener
from gateway.proxy.local import LocalRequests
from gateway.proxy.once import OnceOnly
from gateway.proxy.plane import DataPlane
from gateway.proxy.sockets import listening
from gateway.proxy.under_way import begun_between
from gateway.recorded import Recorded
from gateway.recorder import OnFailure, Reader, Recorder
from gateway.recorder.compose import recorded
from gateway.recorder.heads import load_signer
from gateway.recording import record
from gateway.revocations import Book
from gateway.routing import Agent
from gateway.telemetry.approvals import ApprovalMetrics
from gateway.telemetry.brokering import brokering_readings, exchange_readings
from gateway.telemetry.budgets import BudgetMetrics
from gateway.telemetry.counters import Counters, Reading
from gateway.telemetry.export import Export
from gateway.telemetry.ledger import LedgerMetrics
from gateway.telemetry.membership import MembershipMetrics, Readings
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.otlp import access_log as logged
from gateway.telemetry.otlp import access_log_readings, shipping, shipping_readings, tracing_readings
from gateway.telemetry.otlp import tracing as traced
from gateway.telemetry.overload import OverloadMetrics
from gateway.telemetry.recent import MAX_RECENT, Recent
from gateway.telemetry.recorder import RecorderMetrics
from gateway.telemetry.revocations import RevocationMetrics
from gateway.telemetry.shipped import Shipped
from gateway.telemetry.telemetry import Telemetry
from gateway.verdict import Decided

log = logging.getLogger(__name__)

OPEN_AFTER_S = 10.0
"""A packet that is under way for longer is recorded as open, before its end is."""
OPEN_INTERVAL_S = 2.0


class Gateway:
    """Owns the data plane, the admin port and the watcher."""

    def __init__(self, path: Path, config: GatewaySpec, inherited: Inherited | None = None) -> None:
        """Read and check everything; `config` is what `path` says; `inherited` makes it one worker of several.

        Raises:
            DocumentError: policies or members are not valid, or a secret cannot be used.
            TlsError: certificates cannot be used.

        """
        self.config = config
        """The settings in force."""
        self._path = path.absolute()
        self._inherited = inherited
        self._changed = asyncio.Event()
        self.plane: DataPlane | None = None
        self._tls = TlsContexts.load(config.identity, config.connect_authority)
        self._loaded = loaded = snapshots.build(snapshots.read(config), config)
        self._snapshot = loaded.snapshot
        self.servers = AuthorizationServers(time.monotonic)
        self.broker = Broker(self.servers, time.monotonic)
        self.broker.secrets, unusable = read_secrets(loaded.secret_files)
        if unusable:
            raise DocumentError(unusable)
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
                    Reading(
                        "phoenixflight_credentials",
                        "Handoff credentials, by what became of them, and by the claim for which one was refused.",
                        ("outcome", "claim"),
                        lambda: self.plane.minting.counts if self.plane is not None else {},
                    ),
                )
            )
        )
        self.desk = Desk(config.approvals)
        """What waits for an approval."""
        self.metrics.registry.register(Counters(brokering_readings(self.broker, self.servers)))
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
            return Now(ready, self.status.revision, 0, 0, 0.0, 0, 0)
        connections = sum(len(each.connections) for each in plane.listeners)
        monitor = plane.monitor
        return Now(
            ready, self.status.revision, plane.in_flight, connections, monitor.lag_s, monitor.level, len(self.desk)
        )

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
        shipped = shipping(spec)
        for readings in (tracing_readings(tracing), access_log_readings(access_log), shipping_readings(shipped)):
            self.metrics.registry.register(Counters(readings))
        telemetry = self._telemetry = Telemetry(
            self.metrics,
            tracing,
            self.recent,
            access_log,
            sinks=(
                self.live.add,
                *((recorder.add,) if recorder is not None else ()),
                *((partial(_ship, shipped),) if shipped is not None else ()),
            ),
            exports=(shipped.close,) if shipped is not None else (),
        )
        tuning = plane_tuning(config)
        plane = self.plane = DataPlane(
            loop,
            telemetry,
            upstream_context=lambda agent: self._tls.client(agent),
            tunnel_context=lambda host: self._tls.tunnel(host),
            replay=self.shared.replay,
            health=self.membership.health,
            leases=self.shared.leases,
            bound=tuning.bound,
            upstream_limits=tuning.upstream,
            caps=Caps(tuning.max_in_flight_per_capability, tuning.max_pending_per_capability),
            clocks=tuning.clocks,
            retries=tuning.retries,
            max_body_bytes=tuning.max_body_bytes,
            max_timeout_s=tuning.max_timeout_s,
            overload=tuning.overload,
            broker=self.broker,
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
        budgets = Budgets(loop, self.shared.budgets, telemetry.defect)
        plane.contexts = ContextStage(loop, self.shared.contexts, telemetry.defect)
        if self.shared.contexts is not None:
            plane.context_requests = self._context_requests(loop, self.shared.contexts, telemetry.defect)
        webhook = Webhook(config.approvals.webhook, self.desk) if config.approvals.webhook is not None else None
        approvals = Approvals(plane, self.desk, webhook.tell if webhook is not None else _tell_nobody)
        # What is waited for comes first: it may be that another agent is chosen meanwhile.
        plane.stages = (approvals, plane.contexts, budgets)
        calls = webhook.counts if webhook is not None else dict.fromkeys(Call, 0)
        self.metrics.registry.register(
            ApprovalMetrics(self.desk, lambda: {call.value: count for call, count in calls.items()})
        )
        self.metrics.registry.register(BudgetMetrics(budgets.counts, self.shared.budgets))
        plane.revoke(self._tls.revoked)
        exchanges = self._token_exchanges()
        plane.local = LocalRequests(loop, (self.membership.registrations, *exchanges), telemetry.defect)
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
                more = self.shared.budgets.run(), self.revocations.run(), self.live.run()
                following = [tasks.create_task(each) for each in (*lasting, *more)]
                if self.shared.contexts is not None:
                    following.append(tasks.create_task(self.shared.contexts.run()))
                tasks.create_task(
                    watch(self._path, lambda: self.config, self.reload, self._stop, lambda: self._loaded.secret_files)
                )
                if recorder is not None:
                    following.append(tasks.create_task(_trace(plane, recorder)))
                self.ready = True
                where = ", ".join(f"{one.name} {one.host}:{one.port}" for one in plane.listeners)
                log.info("ready: %s, admin %s:%d; revision %s", where, *config.admin.address, self._snapshot.revision)
                await self._stop.wait()
                self.ready = False
                limits = self.config.limits
                log.info("not ready any more; draining in %g s", limits.drain_delay_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._force.wait(), limits.drain_delay_s)
                log.info("draining for at most %g s", limits.drain_timeout_s)
                clean = await plane.stop(limits.drain_timeout_s, self._force)
                for task in following:
                    task.cancel()
                await asyncio.gather(*following, return_exceptions=True)
                if webhook is not None:
                    await webhook.close()
                for each in exchanges:
                    await each.close()
                await self.servers.close()
                await self.shared.close()
                stop_admin.set()
        finally:
            if recorder is not None:
                recorder.close()
            await telemetry.close(self._force)
        why = "a second signal" if self._force.is_set() else "the drain timeout"
        log.info("stopped" if clean else f"stopped: {why} cut off open exchanges")
        return clean

    def _token_exchanges(self) -> tuple[TokenExchanges, ...]:
        """What answers agents that need a token for a third party, where there is an authority."""
        if self.config.authority is None:
            return ()

        def sign(claims: Mapping[str, object]) -> str:
            authority = self._snapshot.authority
            assert authority is not None
            return vouch(authority, claims)

        found = TokenExchanges(
            self.servers,
            exchanges=lambda: self._loaded.exchanges,
            secrets=lambda: self.broker.secrets,
            verify=lambda raw, principal, now: self._snapshot.credential(raw, principal, now),
            sign=sign,
            wall=time.time,
            clock=time.monotonic,
            mint_id=lambda: uuid7(time.time(), random.getrandbits),
        )
        self.metrics.registry.register(Counters(exchange_readings(found)))
        return (found,)

    def _context_requests(
        self, loop: asyncio.AbstractEventLoop, contexts: Contexts, on_defect: Callable[[], None]
    ) -> LocalRequests:
        """What answers agents that bring contexts, and fetch them."""
        text = "Contexts, by what befell them."
        reading = Reading("phoenixflight_contexts", text, ("event",), lambda: _by_event(contexts))
        self.metrics.registry.register(Counters((reading,)))
        handler = ContextRequests(contexts, lambda raw, who: self._snapshot.credential(raw, who, time.time()))
        spec = contexts.spec
        return LocalRequests(
            loop,
            (handler,),
            on_defect,
            max_body_bytes=spec.max_size,
            max_held_bytes=spec.max_held,
            too_large=handler.too_large,
        )

    def _recorder(self, loop: asyncio.AbstractEventLoop) -> Recorder | None:
        """The flight recorder, which begins to record.

        Raises:
            OSError: its folder cannot be written.

        """
        spec = self.config.recorder
        if spec is None:
            return None

        def in_trouble(unrecorded: bool) -> None:
            assert self.plane is not None
            self.plane.unrecorded = unrecorded
            self.plane.door.unrecorded = unrecorded and spec.on_failure is OnFailure.REFUSE

        signer = load_signer(spec.key.read_bytes()) if spec.key is not None else None
        recorder = Recorder(loop, spec, signer, in_trouble, clock=time.time, entropy=os.urandom)
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
            original_destination=spec.original_destination,
            sockets=self._inherited.sockets(spec.name) if self._inherited is not None else (),
            reuse_port=self.config.reuse_port,
            limits=downstream_limits(self.config.limits),
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
                flips_count = self.config.reload.max_flips is not None
                found = await asyncio.to_thread(self._read, self._under_way()[-MAX_RECENT:] if flips_count else [])
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

    def _read(self, under_way: Sequence[Decided]) -> Attempt:
        max_flips = self.config.reload.max_flips
        insisted, self._insisted = self._insisted, False
        guard = None
        if max_flips is not None and not insisted:
            guard = FlipGuard(max_flips, [*map(recorded, self.recent.records()), *map(record, under_way)])
        found = attempt(self._path, self.config, self._snapshot, guard, self._everyone)
        return with_secrets(found, self._loaded, self.broker.secrets)

    def _under_way(self) -> list[Decided]:
        plane = self.plane
        return [decided for decided, _ in begun_between(plane, -math.inf, math.inf)] if plane is not None else []

    def decision_on(self, flight_id: str) -> Recorded | None:
        """The latest decision on the packet with this id, if it is under way or ended lately."""
        if self.plane is not None:
            self.plane.records.settle()
        for decided in self._under_way():
            packet = decided.verdict.packet
            if packet is not None and packet.id == flight_id:
                return record(decided)
        return self.recent.find(flight_id)

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

    def _settle(self, settings: Settings) -> bool:
        """Put settings in force; tells whether any were others."""
        status, before = self.status, self.config
        if settings.restart != status.restart:
            status.restart = self.metrics.restart_needed = settings.restart
            if settings.restart:
                log.warning("%s: needs a restart: %s", self._path, ", ".join(settings.restart))
        self.config = settings.spec
        if self.config == before:
            return False
        if self.plane is not None:
            self.plane.retune(plane_tuning(self.config))
            for listener in self.plane.listeners:
                listener.retune(downstream_limits(self.config.limits))
        if self._telemetry is not None:
            self._telemetry.retune(self.config.telemetry)
        log.info("%s: other settings are in force", self._path)
        return True

    def _adopt(self, found: Attempt) -> None:
        """Put what is good in force; what is not changes nothing, and is told."""
        now = datetime.now(UTC)
        status = self.status
        if found.defect is not None:
            self.metrics.defects += 1
            log.error("reading the files failed", exc_info=found.defect)
        resettled = found.settings is not None and self._settle(found.settings)
        if found.tls is not None:
            self._put_in_use(found.tls)
            status.certificates_since = now
        if found.secrets is not None:
            self.broker.secrets = found.secrets
        if found.revoked is not None:
            self.revocations.list(found.revoked)
        if found.loaded is not None:
            self._loaded = found.loaded
            self._put_in_force(found.loaded.snapshot)
            self.metrics.revision = status.revision = self._snapshot.revision
            status.since = now
            status.files = found.loaded.sources.files
            status.warnings = told(found.loaded.warnings)
        if found.loaded is not None or resettled or not (found.problems or self.metrics.last_reload_ok):
            status.history.append(ReloadEvent(now, status.revision))
            log.info("revision %s is in force", status.revision)
            _log_warnings(status)
        if found.problems:
            self.metrics.reload_failures += 1
            status.last_refused = ReloadEvent(now, None, found.problems)
            status.history.append(status.last_refused)
            log.error("reload refused, revision %s is in force:\n%s", status.revision, "\n".join(found.problems))
        self.metrics.last_reload_ok = not found.problems


def _by_event(contexts: Contexts) -> dict[tuple[str], int]:
    return {(event.value,): count for event, count in contexts.counts.items()}


def _tell_nobody(_: Waiting) -> None:
    """Where there is no webhook: operators look for themselves."""


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


def _ship(shipped: Export[Shipped], handoff: Handoff, _: Decided, record: bytes) -> None:
    """A sink of telemetry's: send a record to a collector, where there is one."""
    if record:
        shipped.add(Shipped(handoff, record))
