"""One call records a handoff everywhere."""

from __future__ import annotations

from gateway.handoff import Handoff
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import Trace, Tracing


class Telemetry:
    """Metrics, traces and the access log, behind what the data plane asks for."""

    def __init__(self, metrics: Metrics, tracing: Tracing, access_log: AccessLog | None) -> None:
        self.metrics = metrics
        self.tracing = tracing
        self.access_log = access_log
        self.begin_trace = tracing.begin
        self.connection_opened = metrics.connection_opened
        self.connection_closed = metrics.connection_closed
        self.handshake_failed = metrics.handshake_failed
        self.protocol_error = metrics.protocol_error
        self.judged_again = metrics.judged_again
        if access_log is not None:
            metrics.log_dropped = lambda: access_log.dropped

    def handoff(self, handoff: Handoff, trace: Trace, gateway_s: float, duration_s: float) -> None:
        """A handoff ended."""
        self.metrics.handoff(handoff, gateway_s, duration_s)
        if self.access_log is not None:
            self.access_log.write(handoff)
        if trace.span is not None:
            self.tracing.end(trace, handoff)

    def defect(self) -> None:
        """Something of ours failed."""
        self.metrics.defects += 1

    def close(self) -> None:
        """Flush everything."""
        if self.access_log is not None:
            self.access_log.close()
        self.tracing.close()
