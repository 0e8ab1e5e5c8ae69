"""Lines, written by a thread of their own."""

from __future__ import annotations

import logging
import os
import queue
import select
import stat
import sys
import threading
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 0.05
MAX_PENDING_BYTES = 16 * 1024 * 1024
"""Beyond this, with a writer that cannot keep up, lines are dropped and counted."""
LOOK_INTERVAL_S = 1.0
"""How often it is looked whether the file was moved away, as logrotate does; then one of its name is begun anew."""


class LineWriter:
    """Gathers lines on the loop; a slow disk or a full pipe holds up the thread and never a packet."""

    def __init__(self, loop: AbstractEventLoop, name: str, target: Path | None) -> None:
        """Open the target.

        Args:
            loop: whose turns lines are gathered on.
            name: what the lines are, for people.
            target: a file, opened for appending; ``None`` is stdout.

        Raises:
            OSError: the file cannot be opened.

        """
        self.name = name
        self.dropped = 0
        self._loop = loop
        self._lines: list[bytes] = []
        self._pending = 0
        self._timer: TimerHandle | None = None
        self._chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._target = target
        self._file = sys.stdout.fileno() if target is None else _open(target)
        self._pipe = stat.S_ISFIFO(os.fstat(self._file).st_mode)
        self._looked_at = monotonic()
        self._stays = ""
        """Why the file stays where it was moved to."""
        self._trouble = ""
        """What was logged of it last."""
        self._worker = threading.Thread(target=self._write, name=name, daemon=True)
        self._worker.start()

    def write(self, line: bytes) -> None:
        """Write `line`, which has no end yet, soon."""
        if self._pending > MAX_PENDING_BYTES:
            self.dropped += 1
            return
        self._lines.append(line)
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_INTERVAL_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            lines.append(b"")
            chunk = b"\n".join(lines)
            self._pending += len(chunk)
            self._chunks.put(chunk)

    def _write(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            try:
                self._follow_moves()
                for piece in _pieces(chunk, select.PIPE_BUF) if self._pipe else (chunk,):
                    rest = memoryview(piece)
                    while rest:
                        written = os.write(self._file, rest)
                        rest = rest[written:]  # mypyc would do what stands in a slice of this type twice
            except OSError as error:
                self.dropped += chunk.count(b"\n")
                self._tell(f"cannot be written: {error}")
            else:
                self._tell("")
            self._pending -= len(chunk)

    def _follow_moves(self) -> None:
        """Begin the file anew if it is not where it was."""
        now = monotonic()
        if self._target is None or self._pipe or now - self._looked_at < LOOK_INTERVAL_S:
            return
        self._looked_at = now
        try:
            if self._target.exists() and os.path.samestat(self._target.stat(), os.fstat(self._file)):
                self._stays = ""
                return
            fresh = _open(self._target)
        except OSError as error:
            self._stays = f"was moved, is written to where it is now, and cannot be begun anew: {error}"
            return
        self._stays = ""
        os.close(self._file)
        self._file = fresh

    def _tell(self, trouble: str) -> None:
        """Log trouble when it begins, and not for each of the lines after that; and its end."""
        trouble = trouble or self._stays
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log.error("the %s %s", self.name, trouble)
        else:
            log.info("the %s is written again; %d lines are lost so far", self.name, self.dropped)

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._chunks.put(None)
        self._worker.join(timeout=5)


def _pieces(chunk: bytes, most: int) -> Iterator[bytes]:
    """`chunk` in pieces of whole lines: a pipe takes up to `most` bytes at once, whoever else writes to it."""
    start = 0
    while len(chunk) - start > most:
        end = chunk.rfind(b"\n", start, start + most) + 1 or chunk.find(b"\n", start) + 1
        yield chunk[start:end]
        start = end
    yield chunk[start:]


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
