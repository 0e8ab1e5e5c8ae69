"""OTLP over HTTP: https://opentelemetry.io/docs/specs/otlp/#otlphttp."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.telemetry.spec import OtlpSpec
from gateway.telemetry.ways import Heard, hush, rejected_records, rejected_spans

MAX_ANSWER_BYTES: Final = 65536
_AGAIN: Final = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_S: Final = 1.0
"""Before log records are sent again, doubled each time, within the timeout; the same as for spans."""


class Session(requests.Session):
    """A kept connection to a collector that is listened to."""

    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self.trust_env = False  # no proxy, no .netrc, no other CA
        self.headers["accept-encoding"] = "identity"
        self._heard = heard

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send it, and read no more of the answer than there should be.

        Raises:
            RequestException: there was no answer, or it leads elsewhere, which the exporter takes for success.

        """
        try:
            response = super().send(request, **{**kwargs, "stream": True})
            answer = _read(response)
        except requests.Timeout:
            self._heard.trouble("no answer in time")
            raise
        except requests.RequestException as error:
            self._heard.trouble(_cause(error))
            raise
        if response.status_code in range(200, 300):
            self._heard.answer(answer)
            return response
        plain = response.headers.get("content-type") == "text/plain"
        why = f"status {response.status_code} {answer.decode('latin-1') if plain else ''}".strip()
        self._heard.trouble(why)
        if response.status_code in range(300, 400):
            raise requests.TooManyRedirects(why)
        return response


class SpansOverHttp:
    """OpenTelemetry's exporter."""

    def __init__(self, spec: OtlpSpec) -> None:
        hush()
        self._heard = Heard(rejected_spans)
        self._exporter: SpanExporter = OTLPSpanExporter(
            url(spec, "/v1/traces"),
            certificate_file=ca_path(spec),
            headers=spec.headers,
            timeout=spec.timeout_s,
            compression=Compression.NoCompression,
            session=Session(self._heard),
        )

    def send(self, spans: Sequence[ReadableSpan]) -> int:
        """Send one export, trying again within its timeout; gives how many of it the collector rejected.

        Raises:
            UnsentError: it was not taken.

        """
        return self._heard.outcome(self._exporter.export(spans) is SpanExportResult.SUCCESS)

    def shutdown(self) -> None:
        """Try no more, and let the connection go; from any thread."""
        self._exporter.shutdown()


class RecordsOverHttp:
    """Does for log records what OpenTelemetry's exporter, which is not public yet, would do."""

    def __init__(self, spec: OtlpSpec) -> None:
        self._heard = Heard(rejected_records)
        self._session = Session(self._heard)
        self._session.verify = ca_path(spec) or True
        self._session.headers.update({**spec.headers, "content-type": "application/x-protobuf"})
        self._url = url(spec, "/v1/logs")
        self._timeout_s = spec.timeout_s
        self._shut = threading.Event()

    def send(self, request: ExportLogsServiceRequest) -> int:
        """Send one export, trying again within its timeout; gives how many of it the collector rejected.

        Raises:
            UnsentError: it was not taken.

        """
        return self._heard.outcome(self._taken(bytes(request.SerializeToString())))

    def _taken(self, message: bytes) -> bool:
        until = monotonic() + self._timeout_s
        pause = _FIRST_PAUSE_S
        while (left := until - monotonic()) > 0:
            wait = pause
            try:
                response = self._session.post(self._url, message, timeout=left, allow_redirects=False)
            except (requests.ConnectionError, requests.Timeout):
                pass
            except requests.RequestException:
                return False
            else:
                if response.ok:
                    return True
                if response.status_code not in _AGAIN:
                    return False
                wait = max(pause, _seconds(response.headers.get("retry-after", "")))
            if wait > until - monotonic() or self._shut.wait(wait):
                return False
            pause *= 2
        return False

    def shutdown(self) -> None:
        """Try no more, and let the connection go; from any thread."""
        self._shut.set()
        self._session.close()


def url(spec: OtlpSpec, path: str) -> str:
    """Where exports go: to `path` where `spec` names none."""
    parts = urlsplit(spec.otlp_endpoint)
    return parts._replace(path=path).geturl() if parts.path in ("", "/") else spec.otlp_endpoint


def ca_path(spec: OtlpSpec) -> str | None:
    """The file, or folder, of those that may vouch for the collector: without any configured, those of the system."""
    if spec.ca_file is not None:
        return str(spec.ca_file)
    system = ssl.get_default_verify_paths()
    return system.cafile or system.capath


def _read(response: requests.Response) -> bytes:
    answer = b""
    for part in response.iter_content(MAX_ANSWER_BYTES):
        answer += part
        if len(answer) >= MAX_ANSWER_BYTES:
            break
    response.close()  # which keeps the connection, if all of it was read
    return answer


def _cause(error: BaseException) -> str:
    """What is at the bottom of it, such as: connection refused."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
