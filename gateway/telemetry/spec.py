"""What of telemetry is configured."""

from __future__ import annotations

import importlib.util
import re
from enum import Enum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from gateway.documents import Duration, ErrorAt, Spec
from gateway.telemetry.principals import PrincipalGroup

_FIELD_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_FIELD_VALUE = re.compile(r"[\x20-\x7e]*")


def _http_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"expected an http:// or https:// URL, not {text[:80]!r}")
    try:
        if not urlsplit(text).hostname:
            raise ValueError(f"{text[:80]!r} names no host")
        _ = urlsplit(text).port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    return text


class MetricsSpec(Spec):
    """How metrics are counted."""

    principal_group: PrincipalGroup = PrincipalGroup.NAMESPACE
    """By what of their ids callers are grouped; ids themselves are never labels."""


class OtlpProtocol(Enum):
    """How OTLP is spoken."""

    HTTP = "http"
    """Protobuf over HTTP/1.1."""
    GRPC = "grpc"


class OtlpSpec(Spec):
    """A collector of OpenTelemetry's."""

    otlp_endpoint: Annotated[str, AfterValidator(_http_url)]
    """A URL.  Over HTTP without a path, the path is that of the protocol (``/v1/traces``, ``/v1/logs``)."""
    protocol: OtlpProtocol = OtlpProtocol.HTTP
    headers: dict[str, str] = Field(default={}, repr=False)
    """Sent with each export, such as a bearer token; gRPC calls them metadata."""
    timeout_s: Annotated[Duration, Field(alias="timeout", gt=0)] = 10.0
    """For each export, with trying it again; then it is dropped."""
    ca_file: Path | None = None
    """Who vouches for the collector's certificate; without one, whom the system trusts."""

    @field_validator("protocol")
    @classmethod
    def _can_be_spoken(cls, protocol: OtlpProtocol) -> OtlpProtocol:
        if protocol is OtlpProtocol.GRPC and importlib.util.find_spec("opentelemetry.exporter.otlp.proto.grpc") is None:
            raise ValueError("grpc needs the extra grpc: pip install 'phoenixflight-gateway[grpc]'")
        return protocol

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if _FIELD_NAME.fullmatch(name) is None:
                raise ErrorAt("a header's name is of lower-case letters, digits and '-'", name)
            if _FIELD_VALUE.fullmatch(value) is None:
                raise ErrorAt("a header's value is printable ASCII", name)
        return headers

    @model_validator(mode="after")
    def _tls_where_there_is_a_ca(self) -> OtlpSpec:
        if self.ca_file is not None and not self.otlp_endpoint.startswith("https://"):
            raise ErrorAt("a caFile is for an https:// otlpEndpoint", "caFile")
        return self


class TracingSpec(OtlpSpec):
    """Where spans go, and of which handoffs."""

    sample_ratio: float = Field(default=0.01, ge=0, le=1)
    """Share of handoffs without trace context that are sampled; the others follow their caller."""
    slow_s: Annotated[Duration, Field(alias="slow", gt=0)] = 30.0
    """Handoffs whose answer took so long to begin are kept, sampled or not; so are those refused, failed, revoked."""
    kept_per_second: float = Field(default=20.0, ge=0)
    """Unsampled handoffs that are kept at most, of each of these kinds."""


class TelemetrySpec(Spec):
    """What is recorded where."""

    access_log: str = Field(default="stdout", min_length=1)
    """``stdout``, ``none``, ``otlp``, or a file."""
    max_lines: int = Field(default=10_000, ge=1)
    """Lines of the access log a second; what is beyond is counted and told of in one line a second."""
    max_refused_lines: int = Field(default=200, ge=1)
    """The same for handoffs that did not complete, beside one line a second for each caller and reason."""
    logs: OtlpSpec | None = None
    """Where the access log goes when it is ``otlp``."""
    tracing: TracingSpec | None = None
    records: OtlpSpec | None = None
    """Where the flight recorder's records go, beside its folder."""
    metrics: MetricsSpec = MetricsSpec()

    @model_validator(mode="after")
    def _logs_have_a_place(self) -> TelemetrySpec:
        if (self.access_log == "otlp") != (self.logs is not None):
            message = "accessLog: otlp and logs (where to) go together"
            raise ErrorAt(message, "accessLog" if self.logs is None else "logs")
        return self

    def under(self, base: Path) -> TelemetrySpec:
        """The same with paths that are absolute, relative ones taken as against `base`."""
        files: dict[str, object] = {}
        if self.access_log not in ("stdout", "none", "otlp"):
            files["access_log"] = str(base / self.access_log)
        for name, otlp in (("logs", self.logs), ("tracing", self.tracing), ("records", self.records)):
            if otlp is not None and otlp.ca_file is not None:
                files[name] = otlp.model_copy(update={"ca_file": base / otlp.ca_file})
        return self.model_copy(update=files)
