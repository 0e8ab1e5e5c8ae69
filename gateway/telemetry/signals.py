"""What is told to a collector: handoffs as spans, lines of the access log as log records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from gateway.telemetry.export import let_others_run
from gateway.telemetry.log_records import Line, request
from gateway.telemetry.spans import Ended, spans, spans_of
from gateway.telemetry.ways import Way


class Spans:
    """Handoffs that have ended."""

    name = "spans"
    max_batch = 64
    """The encoder copies a whole message three times, each in one go, which the loop has to wait for."""

    def __init__(self, resource: Resource, way: Way[Sequence[ReadableSpan]]) -> None:
        self._resource = _Known(resource.attributes)
        self._way = way

    def count(self, ended: Ended) -> int:
        """How many spans."""
        return spans_of(ended.handoff)

    def export(self, batch: Sequence[Ended]) -> int:
        """Send the spans of `batch`; gives how many the collector rejected.

        Raises:
            UnsentError: it was not taken.

        """
        made = _Unhurried()
        for ended in batch:
            made.extend(spans(ended, self._resource))
            let_others_run()
        return self._way.send(made)

    def shutdown(self) -> None:
        """Try no more."""
        self._way.shutdown()


class LogRecords:
    """Lines of the access log."""

    name = "log records"
    max_batch = 256

    def __init__(self, resource: Resource, way: Way[ExportLogsServiceRequest]) -> None:
        self._resource = resource
        self._way = way

    def count(self, line: Line) -> int:
        """How many log records."""
        return 1

    def export(self, batch: Sequence[Line]) -> int:
        """Send `batch`; gives how many the collector rejected.

        Raises:
            UnsentError: it was not taken.

        """
        return self._way.send(request(batch, self._resource))

    def shutdown(self) -> None:
        """Try no more."""
        self._way.shutdown()


class _Known(Resource):
    """Hashed once: the encoder asks for it with each span, and a resource's own hash writes it out as JSON."""

    def __hash__(self) -> int:
        return id(self)


class _Unhurried(list[ReadableSpan]):
    """Spans of one handoff after the other; the encoder would go through all of them in one go."""

    def __iter__(self) -> Iterator[ReadableSpan]:
        for span in super().__iter__():
            if span.kind is SpanKind.SERVER:
                let_others_run()
            yield span
