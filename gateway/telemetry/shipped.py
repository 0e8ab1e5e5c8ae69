"""The flight recorder's records as OTLP's log records: what each says, not where it stands in the chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk.resources import Resource

from gateway.handoff import Handoff
from gateway.telemetry.export import let_others_run
from gateway.telemetry.log_records import Line, in_one_message, log_record
from gateway.telemetry.ways import Way

RECORD_EVENT = "phoenixflight.record"


class Shipped(NamedTuple):
    """A handoff that ended, and its record."""

    handoff: Handoff
    record: bytes


class Records:
    """Records of the flight recorder."""

    name = "flight records"
    max_batch = 64

    def __init__(self, resource: Resource, way: Way[ExportLogsServiceRequest]) -> None:
        self._resource = resource
        self._way = way

    def count(self, shipped: Shipped) -> int:
        """How many log records."""
        return 1

    def export(self, batch: Sequence[Shipped]) -> int:
        """Send `batch`; gives how many the collector rejected.

        Raises:
            UnsentError: it was not taken.

        """
        made = []
        for shipped in batch:
            made.append(record_message(shipped))
            let_others_run()
        return self._way.send(in_one_message(made, self._resource))

    def shutdown(self) -> None:
        """Try no more."""
        self._way.shutdown()


def record_message(shipped: Shipped) -> LogRecord:
    """The record, as JSON, in the body; the handoff's fields as attributes, as the access log has them."""
    message = log_record(Line(shipped.handoff))
    message.event_name = RECORD_EVENT
    message.body.string_value = shipped.record.decode()
    return message
