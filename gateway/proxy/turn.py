"""The end of a turn of the event loop: what is left to do then, all by one callback."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Writer(Protocol):
    """Whoever gathers what it has to write until the turn is over."""

    def end_turn(self) -> None:
        """The turn is over.  Must not raise."""


class Turn:
    """Of one event loop.  A callback for each connection would cost as much as what it does."""

    __slots__ = ("_due", "_writers", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._writers: list[Writer] = []
        self._due = False

    def note(self, writer: Writer) -> None:
        """Tell `writer` when the turn is over."""
        self._writers.append(writer)
        if not self._due:
            self._due = True
            self.loop.call_soon(self._end)

    def _end(self) -> None:
        self._due = False
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.end_turn()
