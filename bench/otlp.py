"""A stand-in for an OpenTelemetry collector: takes every OTLP/HTTP export and answers 200."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"


class OtlpSink(asyncio.Protocol):
    """One exporter's connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """An export arrived whole."""
        self._transport.write(_ANSWER)
