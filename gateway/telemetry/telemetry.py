"""One call records a handoff everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

from gateway.handoff import Handoff
from gateway.recorder.compose import line_of, record_of
from gateway.telemetry.access import AccessLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recent import Recent
from gateway.telemetry.spec import TelemetrySpec
from gateway.telemetry.trace import Trace
from gateway.telemetry.tracing import Tracing
from gateway.verdict import Decided

log = logging.getLogger(__name__)

Sink = Callable[[Handoff, Decided, bytes], None]
"""Takes a handoff that ended, the decision that it began with, and the record of both, which is empty where a defect
has kept it from being made."""


class Telemetry:
    """Metrics, traces and the access log, behind what the data plane asks for."""

    def __init__(
        self,
        metrics: Metrics,
        tracing: Tracing,
        recent: Recent,
        access_log: AccessLog | None = None,
        sinks: tuple[Sink, ...] = (),
        exports: tuple[Callable[[], None], ...] = (),
    ) -> None:
        """Args: `sinks` take each handoff; `exports` close what they export to, which may take seconds."""
        self.metrics = metrics
        self.tracing = tracing
        self.recent = recent
        self.access_log = access_log
        self._sinks = sinks
        self._exports = exports
        self.begin_trace = tracing.begin
        self._ended = tracing.ended
        self.connection_opened = metrics.connection_opened
        self.connection_closed = metrics.connection_closed
        self.handshake_failed = metrics.handshake_failed
        self.abuse = metrics.abuse
        self.judged_again = metrics.judged_again
        metrics.lines_dropped = lambda: {access_log.name: access_log.dropped} if access_log is not None else {}

    def handoff(self, handoff: Handoff, decided: Decided, trace: Trace, gateway_s: float, duration_s: float) -> None:
        """A handoff ended."""
        self.metrics.handoff(handoff, gateway_s, duration_s, sampled=bool(trace.base and trace.flags & 1))
        line, record = line_of(handoff), b""
        if self.access_log is not None:
            self.access_log.write(handoff, line, trace)
        try:
            record = record_of(handoff, decided, line)
        except Exception:
            self.defect()
            log.exception("a record could not be made")
        else:
            self.recent.add(record)
        self._ended(handoff, decided, trace)
        for sink in self._sinks:
            sink(handoff, decided, record)

    def retune(self, spec: TelemetrySpec) -> None:
        """Sample spans and log lines at other rates."""
        if spec.tracing is not None:
            self.tracing.retune(spec.tracing)
        if self.access_log is not None:
            self.access_log.retune(spec.max_lines, spec.max_refused_lines)

    def defect(self) -> None:
        """Something of ours failed."""
        self.metrics.defects += 1

    async def close(self, force: asyncio.Event) -> None:
        """Flush everything; `force` ends the wait for a collector that does not answer."""
        if self.access_log is not None:
            self.access_log.close()
        exports = (self.tracing.export, self.access_log.export if self.access_log is not None else None)
        closings = (*(export.close for export in exports if export is not None), *self._exports)
        told = [asyncio.create_task(_done(close)) for close in closings]
        if told:
            forced = asyncio.create_task(force.wait())
            forced.add_done_callback(lambda _: [each.cancel() for each in told])
            await asyncio.wait(told)
            forced.cancel()


async def _done(close: Callable[[], None]) -> None:
    """Wait for `close`, in a thread that the process does not wait for when it ends, as it does for the executor's."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        close()
        with contextlib.suppress(RuntimeError):  # the loop waits no longer
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="last exports", daemon=True).start()
    await done.wait()
