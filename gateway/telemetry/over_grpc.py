"""OTLP over gRPC: https://opentelemetry.io/docs/specs/otlp/#otlpgrpc; takes the extra grpc."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.exporter import OTLPExporterMixin
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from gateway.telemetry.spec import OtlpSpec
from gateway.telemetry.ways import Heard, Way, hush, rejected_records, rejected_spans

_PORT: Final = 4317

Data = TypeVar("Data")


class OverGrpc(OTLPExporterMixin, Generic[Data]):  # type: ignore[type-arg]  # its parameters are closed lists
    """What OpenTelemetry's exporters are made of: the channel, and trying again."""

    _exporting = "signals"

    def __init__(
        self,
        spec: OtlpSpec,
        ca: bytes | None,
        stub: Callable[[grpc.Channel], Any],
        encode: Callable[[Data], Message],
        heard: Heard,
    ) -> None:
        """Args: `ca` are certificates in PEM, for https; ``None``: those that come with gRPC."""
        hush()
        self._heard = heard
        self._encode = encode
        secure = spec.otlp_endpoint.startswith("https://")
        super().__init__(
            stub=lambda channel: _Listening(stub(channel), heard),
            result=SpanExportResult,
            endpoint=_target(spec.otlp_endpoint),
            insecure=not secure,
            credentials=grpc.ssl_channel_credentials(ca) if secure else None,
            headers=tuple(spec.headers.items()),
            timeout=spec.timeout_s,
            compression=grpc.Compression.NoCompression,
        )

    def send(self, data: Data) -> int:
        """Send one export, trying again within its timeout; gives how many of it the collector rejected.

        Raises:
            UnsentError: it was not taken.

        """
        return self._heard.outcome(self._export(data) is SpanExportResult.SUCCESS)

    def _translate_data(self, data: Data) -> Message:
        return self._encode(data)

    def _count_data(self, data: Data) -> int:
        return 0  # for numbers of its own, which are not kept


def spans_over_grpc(spec: OtlpSpec, ca: bytes | None) -> Way[Sequence[ReadableSpan]]:
    """For spans; `ca` as above."""
    return OverGrpc(spec, ca, TraceServiceStub, encode_spans, Heard(rejected_spans))


def records_over_grpc(spec: OtlpSpec, ca: bytes | None) -> Way[ExportLogsServiceRequest]:
    """For log records; `ca` as above."""
    return OverGrpc(spec, ca, LogsServiceStub, lambda request: request, Heard(rejected_records))


class _Listening:
    """A stub that is listened to."""

    def __init__(self, stub: Any, heard: Heard) -> None:
        self._stub = stub
        self._heard = heard

    def Export(self, **call: Any) -> Message:  # noqa: N802 - gRPC's name for it
        try:
            answer: Message = self._stub.Export(**call)
        except grpc.RpcError as error:
            self._heard.trouble(f"{error.code().name} {error.details() or ''}".strip())
            raise
        self._heard.answer(answer.SerializeToString())
        return answer


def _target(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or _PORT}"
