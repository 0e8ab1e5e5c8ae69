"""Lines of the access log as OTLP's log records.  Pure.

Made of the protocol's own messages: what OpenTelemetry's SDK has for log records is not public in it yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.sdk.resources import Resource

from gateway.handoff import Handoff, Outcome
from gateway.telemetry.conventions import SCOPE, Value, cut, handoff_attributes
from gateway.telemetry.export import let_others_run
from gateway.telemetry.suppressed import Suppressed

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


def request(batch: Sequence[Line], resource: Resource) -> ExportLogsServiceRequest:
    """All of `batch` in one message; `resource` tells."""
    made = []
    for line in batch:
        made.append(log_record(line))
        let_others_run()
    return in_one_message(made, resource)


def in_one_message(records: Sequence[LogRecord], resource: Resource) -> ExportLogsServiceRequest:
    """All of `records`; `resource` tells."""
    scope = ScopeLogs(scope=InstrumentationScope(name=SCOPE.name, version=SCOPE.version or ""))
    for record in records:
        scope.log_records.append(record)
        let_others_run()
    who = ResourceMessage(attributes=_key_values(cut(resource.attributes.items())))  # type: ignore[arg-type]
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=who, scope_logs=[scope])])


def log_record(line: Line) -> LogRecord:
    """`line` with its fields as attributes; the line itself is the body of one that tells of suppressed ones."""
    said = line.said
    ns = int(said.time.timestamp() * 1e6) * 1000
    record = LogRecord(time_unix_nano=ns, observed_time_unix_nano=ns)
    if isinstance(said, Suppressed):
        record.event_name = SUPPRESSED_EVENT
        record.severity_number, record.severity_text = _SEVERITIES[Outcome.REFUSED]
        record.body.string_value = msgspec.json.encode(said).decode()
        return record
    record.event_name = HANDOFF_EVENT
    record.severity_number, record.severity_text = _SEVERITIES[said.outcome]
    record.body.string_value = _sentence(said)
    record.trace_id = bytes.fromhex(said.trace_id)
    if line.span_id:
        record.span_id = line.span_id.to_bytes(8, "big")
    record.flags = line.flags
    record.attributes.extend(_key_values(cut(handoff_attributes(said))))
    return record


def _key_values(attributes: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any(value)) for name, value in attributes.items()]


def _any(value: Value) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=value)
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case _:
            return AnyValue(array_value=ArrayValue(values=[_any(each) for each in value]))


def _sentence(handoff: Handoff) -> str:
    whose = f" from {handoff.caller}" if handoff.caller else ""
    why = f": {handoff.reason}" if handoff.reason else ""
    at = f" at {handoff.agent}" if handoff.agent else ""
    return f"{handoff.capability or 'a request'}{whose} {handoff.outcome.value}{at}{why}"
