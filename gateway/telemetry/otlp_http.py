"""OTLP over HTTP: https://opentelemetry.io/docs/specs/otlp/#otlphttp."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from gateway.telemetry.export import UnsentError

MAX_ANSWER_BYTES: Final = 65536
_AGAIN: Final = frozenset({429, 502, 503, 504})
_TOLD_CHARACTERS: Final = 200


class HttpSender:
    """One kept connection to a collector; for one thread."""

    def __init__(self, url: str, path: str, headers: Mapping[str, str], context: ssl.SSLContext | None) -> None:
        """Args: `path` is for a `url` without one; `context` is for https."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port
        self._context = context
        self._path = (parts.path if parts.path not in ("", "/") else path) + (f"?{parts.query}" if parts.query else "")
        self._headers = {**headers, "content-type": "application/x-protobuf"}
        self._connection: http.client.HTTPConnection | None = None

    def send(self, message: bytes, timeout_s: float) -> bytes:
        """Send one export; gives the collector's answer.

        Raises:
            UnsentError: it was not taken.

        """
        kept = self._connection is not None
        try:
            return self._send(message, timeout_s)
        except TimeoutError:
            self.close()
            raise UnsentError(f"no answer within {timeout_s:.3g} s", again=True) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if kept:  # it was closed meanwhile, as servers do
                return self.send(message, timeout_s)
            raise UnsentError(str(error) or type(error).__name__, again=True) from None

    def _send(self, message: bytes, timeout_s: float) -> bytes:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect(timeout_s)
        elif connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        connection.request("POST", self._path, message, self._headers)
        response = connection.getresponse()
        answer = response.read(MAX_ANSWER_BYTES)
        if not response.isclosed():
            self.close()  # there is more of it, which nobody wants to read
        if response.status == 200:
            return answer
        told = answer[:_TOLD_CHARACTERS].decode("latin-1") if response.getheader("content-type") == "text/plain" else ""
        why = f"status {response.status} {told}".strip()
        raise UnsentError(why, again=response.status in _AGAIN, after_s=_seconds(response.getheader("retry-after")))

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._context)

    def close(self) -> None:
        """Let the connection go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _seconds(retry_after: str | None) -> float:
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return 0.0
    return float(retry_after[:9])
