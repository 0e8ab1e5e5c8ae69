"""Lines of the access log as OTLP's log records.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.handoff import Handoff, Outcome
from gateway.telemetry.conventions import SCOPE, handoff_attributes, key_values
from gateway.telemetry.export import let_others_run
from gateway.telemetry.flood import Suppressed

HANDOFF_EVENT: Final = "phoenixflight.handoff"
SUPPRESSED_EVENT: Final = "phoenixflight.suppressed"

_SEVERITIES: Final = {
    Outcome.COMPLETED: (SeverityNumber.SEVERITY_NUMBER_INFO, "INFO"),
    Outcome.CANCELLED: (SeverityNumber.SEVERITY_NUMBER_INFO, "INFO"),
    Outcome.REFUSED: (SeverityNumber.SEVERITY_NUMBER_WARN, "WARN"),
    Outcome.REVOKED: (SeverityNumber.SEVERITY_NUMBER_WARN, "WARN"),
    Outcome.FAILED: (SeverityNumber.SEVERITY_NUMBER_ERROR, "ERROR"),
}


class Line(NamedTuple):
    """What is told, and the handoff's span."""

    said: Handoff | Suppressed
    span_id: int = 0
    flags: int = 0


class LogRecords:
    """Lines of the access log, as OTLP's logs."""

    name = "log records"
    method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    path = "/v1/logs"

    def __init__(self, resource: Resource) -> None:
        self._resource = resource

    def encode(self, batch: Sequence[Line]) -> bytes:
        """One message of all of them."""
        scope = ScopeLogs(scope=SCOPE)
        for line in batch:
            scope.log_records.append(log_record(line))
            let_others_run()
        resource_logs = ResourceLogs(resource=self._resource, scope_logs=[scope])
        return ExportLogsServiceRequest(resource_logs=[resource_logs]).SerializeToString()

    def count(self, line: Line) -> int:
        """How many log records."""
        return 1

    def rejected(self, answer: bytes) -> int:
        """How many the collector did not take, by its answer.

        Raises:
            DecodeError: it is no answer.

        """
        return int(ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records)


def log_record(line: Line) -> LogRecord:
    """`line` with its fields as attributes; the line itself is the body of one that tells of suppressed ones."""
    said = line.said
    ns = int(said.time.timestamp() * 1e6) * 1000
    record = LogRecord(time_unix_nano=ns, observed_time_unix_nano=ns)
    if isinstance(said, Suppressed):
        record.event_name = SUPPRESSED_EVENT
        record.severity_number, record.severity_text = _SEVERITIES[Outcome.REFUSED]
        record.body.CopyFrom(AnyValue(string_value=msgspec.json.encode(said).decode()))
        return record
    record.event_name = HANDOFF_EVENT
    record.severity_number, record.severity_text = _SEVERITIES[said.outcome]
    record.body.CopyFrom(AnyValue(string_value=_sentence(said)))
    record.trace_id = bytes.fromhex(said.trace_id)
    if line.span_id:
        record.span_id = line.span_id.to_bytes(8, "big")
    record.flags = line.flags
    record.attributes.extend(key_values(handoff_attributes(said)))
    return record


def _sentence(handoff: Handoff) -> str:
    whose = f" from {handoff.caller}" if handoff.caller else ""
    why = f": {handoff.reason}" if handoff.reason else ""
    at = f" at {handoff.agent}" if handoff.agent else ""
    return f"{handoff.capability or 'a request'}{whose} {handoff.outcome.value}{at}{why}"
