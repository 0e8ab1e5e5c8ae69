"""OTLP over gRPC: https://opentelemetry.io/docs/specs/otlp/#otlpgrpc; takes the extra grpc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import grpc

from gateway.telemetry.export import UnsentError

_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
    }
)
_PORT: Final = 4317
_TOLD_CHARACTERS: Final = 200


class GrpcSender:
    """One channel to a collector."""

    def __init__(self, url: str, method: str, headers: Mapping[str, str], ca: bytes | None) -> None:
        """Args: `method` is the full name; `ca` are certificates in PEM, for https; ``None``: the system's."""
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        target = f"{host}:{parts.port or _PORT}"
        if parts.scheme == "https":
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(ca))
        else:
            self._channel = grpc.insecure_channel(target)
        self._metadata = tuple(headers.items())
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
        self._call = call

    def send(self, message: bytes, timeout_s: float) -> bytes:
        """Send one export; gives the collector's answer.

        Raises:
            UnsentError: it was not taken.

        """
        try:
            answer: bytes = self._call(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            code = error.code()
            why = f"{code.name} {error.details() or ''}".strip()[:_TOLD_CHARACTERS]
            raise UnsentError(why, again=code in _AGAIN) from None
        return answer

    def close(self) -> None:
        """Let the channel go."""
        self._channel.close()
