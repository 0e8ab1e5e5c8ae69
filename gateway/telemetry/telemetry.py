"""One call records a handoff everywhere; another one a decision."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from gateway.handoff import Handoff
from gateway.recording import Decided, record
from gateway.telemetry.lines import LineWriter
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recent import Recent
from gateway.telemetry.tracing import Trace, Tracing

Sink = Callable[[Handoff, Decided], None]
"""Takes a record of a handoff that ended, and the decision that it began with."""


class Telemetry:
    """Metrics, traces, the access log and the recording, behind what the data plane asks for."""

    def __init__(
        self,
        metrics: Metrics,
        tracing: Tracing,
        recent: Recent,
        access_log: LineWriter | None = None,
        recording: LineWriter | None = None,
        sinks: tuple[Sink, ...] = (),
    ) -> None:
        self.metrics = metrics
        self.tracing = tracing
        self.recent = recent
        self.access_log = access_log
        self.recording = recording
        self._sinks = sinks
        self.begin_trace = tracing.begin
        self.connection_opened = metrics.connection_opened
        self.connection_closed = metrics.connection_closed
        self.handshake_failed = metrics.handshake_failed
        self.abuse = metrics.abuse
        self.judged_again = metrics.judged_again
        self._writers = [writer for writer in (access_log, recording) if writer is not None]
        metrics.lines_dropped = lambda: {writer.name: writer.dropped for writer in self._writers}

    def decision(self, decided: Decided) -> None:
        """A decision was taken."""
        self.recent.add(decided)
        if self.recording is not None:
            self.recording.write(record(decided))

    def handoff(self, handoff: Handoff, decided: Decided, trace: Trace, gateway_s: float, duration_s: float) -> None:
        """A handoff ended."""
        self.metrics.handoff(handoff, gateway_s, duration_s, sampled=trace.span is not None)
        if self.access_log is not None:
            self.access_log.write(handoff)
        if trace.span is not None:
            self.tracing.end(trace, handoff)
        for sink in self._sinks:
            sink(handoff, decided)

    def defect(self) -> None:
        """Something of ours failed."""
        self.metrics.defects += 1

    async def close(self, force: asyncio.Event) -> None:
        """Flush everything; `force` ends the wait for a collector of spans that does not answer."""
        for writer in self._writers:
            writer.close()
        loop = asyncio.get_running_loop()
        exported = asyncio.Event()

        def export() -> None:
            self.tracing.close()
            loop.call_soon_threadsafe(exported.set)

        # Not in the executor, whose threads are waited for when the process ends.
        threading.Thread(target=export, name="last spans", daemon=True).start()
        waits = [asyncio.create_task(each.wait()) for each in (exported, force)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
