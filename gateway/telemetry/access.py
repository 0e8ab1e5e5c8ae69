"""The access log: a line for each handoff, to a file, stdout or a collector; under a flood, one line for many."""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import ClassVar, Protocol

import msgspec

from gateway.handoff import Handoff
from gateway.telemetry.export import Export
from gateway.telemetry.flood import WINDOW_S, Flood
from gateway.telemetry.lines import LineWriter
from gateway.telemetry.log_records import Line
from gateway.telemetry.spans import HANDOFF
from gateway.telemetry.suppressed import Suppressed
from gateway.telemetry.trace import Trace


class Target(Protocol):
    """Where lines go."""

    export: Export[Line] | None
    """What is to be closed beside it, since that may take seconds."""

    @property
    def dropped(self) -> int:
        """Lines that it could not take."""

    def write(self, said: Handoff | Suppressed, text: bytes, trace: Trace | None) -> None:
        """Take a line: what is said, and that as JSON."""

    def close(self) -> None:
        """Take no more."""


class ToLines:
    """JSON, to a file or stdout."""

    def __init__(self, writer: LineWriter) -> None:
        self.export: Export[Line] | None = None
        self._writer = writer
        self.close: Callable[[], None] = writer.close

    @property
    def dropped(self) -> int:
        """Lines that could not be written."""
        return self._writer.dropped

    def write(self, said: Handoff | Suppressed, text: bytes, trace: Trace | None) -> None:
        """Take a line."""
        self._writer.write(text)


class ToCollector:
    """OTLP."""

    def __init__(self, export: Export[Line]) -> None:
        self.export: Export[Line] | None = export
        self._export = export

    @property
    def dropped(self) -> int:
        """Log records that the collector did not take."""
        return sum(self._export.dropped.values())

    def write(self, said: Handoff | Suppressed, text: bytes, trace: Trace | None) -> None:
        """Take a line."""
        if trace is None or not trace.base:
            self._export.add(Line(said))
        else:
            self._export.add(Line(said, trace.base + HANDOFF, trace.flags))

    def close(self) -> None:
        """Take no more; the export has an end of its own."""


class AccessLog:
    """Takes each handoff that ended."""

    name: ClassVar[str] = "access log"

    def __init__(
        self,
        loop: AbstractEventLoop,
        target: Target,
        flood: Flood,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._loop = loop
        self._target = target
        self._flood = flood
        self._clock = clock
        self._timer: TimerHandle | None = None
        self.export = target.export
        """Of lines that go to a collector; to be closed after this."""

    @property
    def dropped(self) -> int:
        """Lines that the target could not take."""
        return self._target.dropped

    @property
    def suppressed(self) -> Mapping[str, int]:
        """Handoffs without lines of their own, by outcome."""
        return {outcome.value: count for outcome, count in self._flood.suppressed.items()}

    def retune(self, max_lines: int, max_refused_lines: int) -> None:
        """Let other numbers of lines pass in a second."""
        self._flood.retune(max_lines, max_refused_lines)

    def write(self, handoff: Handoff, text: bytes, trace: Trace | None = None) -> None:
        """Log it, of which `text` is the JSON, unless there are too many."""
        if self._flood.admits(handoff, self._loop.time()):
            self._target.write(handoff, text, trace)
        elif self._timer is None:
            self._timer = self._loop.call_later(WINDOW_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        told = self._flood.told(self._clock())
        if told is not None:
            self._target.write(told, msgspec.json.encode(told), None)

    def close(self) -> None:
        """Write what is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()
        self._target.close()
