"""Ways to a collector: OpenTelemetry's exporters, and what they do not tell.

They say no more than whether they gave up, and log the rest each time.  What a collector answers, such as how many
spans it rejected, is listened to on the way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from gateway.telemetry.export import UnsentError

MAX_TOLD_CHARACTERS: Final = 200
_ABOVE_ALL: Final = logging.CRITICAL + 1

Made = TypeVar("Made", contravariant=True)


class Way(Protocol[Made]):
    """The way to a collector, for one thread."""

    def send(self, made: Made) -> int:
        """Send one export, trying again within its timeout; gives how many of it the collector rejected.

        Raises:
            UnsentError: it was not taken.

        """

    def shutdown(self) -> None:
        """Try no more, and let the connection go; from any thread."""


class Heard:
    """What was last heard from a collector."""

    def __init__(self, rejected: Callable[[bytes], int]) -> None:
        """Args: `rejected` reads it from an answer."""
        self._rejected = rejected
        self._why = ""
        self._answer = b""

    def trouble(self, why: str) -> None:
        """Take note of why an export was not taken this time."""
        self._why = why[:MAX_TOLD_CHARACTERS]

    def answer(self, answer: bytes) -> None:
        """Take note of an answer to an export that was taken."""
        self._answer = answer

    def outcome(self, taken: bool) -> int:
        """How many of an export were rejected; what was heard is forgotten then.

        Raises:
            UnsentError: it was not `taken`.

        """
        why, answer = self._why, self._answer
        self._why, self._answer = "", b""
        if not taken:
            raise UnsentError(why or "it could not be sent")
        try:
            return self._rejected(answer)
        except DecodeError:
            return 0  # it took them, and what it says of them is its own affair


def rejected_spans(answer: bytes) -> int:
    """How many spans, by the answer to them.

    Raises:
        DecodeError: it is no answer.

    """
    return int(ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans)


def rejected_records(answer: bytes) -> int:
    """How many log records, by the answer to them.

    Raises:
        DecodeError: it is no answer.

    """
    return int(ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records)


def hush() -> None:
    """Let the exporters log nothing: `Export` tells of trouble, less often."""
    logging.getLogger("opentelemetry.exporter").setLevel(_ABOVE_ALL)
