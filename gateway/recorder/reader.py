"""Reading what was recorded, beside a gateway that records or without one."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.documents import DocumentError, Problem
from gateway.handoff import Outcome
from gateway.recorder.chain import BrokenLineError, read_line
from gateway.recorder.line import Kind, Line
from gateway.recorder.record import Record, record_in
from gateway.recorder.segments import chains_in, segments_in

_HANDOFF = b'"kind":"%s"' % Kind.HANDOFF.value.encode()


class Found(NamedTuple):
    """A record, and where it stands."""

    file: Path
    start: int
    """Of its line, in bytes from the beginning of the file; so is `end`."""
    end: int
    line: Line
    record: Record


class Reader:
    """The records in a folder; opens no file for writing, and is for threads other than the event loop's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def records(self, *, conversation: str = "", task: str = "", flight_id: str = "") -> Iterator[Record]:
        """The records of packets that match all that is given; those that were erased are not among them.

        Of each packet there is one, its last; only of one whose end is not recorded, the one with the outcome
        `Outcome.OPEN`.  With anything given, they come in the order in which the packets came; else chain by chain,
        in the order in which they ended, and the open ones at the end of their chain.

        Raises:
            DocumentError: a line is no record; the problem says which.
            OSError: the folder cannot be read.

        """
        wanted = {"conversation": conversation, "task": task, "flight_id": flight_id}
        wanted = {name: value for name, value in wanted.items() if value}
        chains = (_ended(chain, wanted) for chain in chains_in(self._folder))
        if wanted:
            yield from sorted((each for records in chains for each in records), key=lambda each: each.time)
        else:
            for records in chains:
                yield from records


def _ended(chain: Path, wanted: dict[str, str]) -> Iterator[Record]:
    under_way: dict[tuple[str, float], Record] = {}
    for path in segments_in(chain):
        for _, _, _, _, record in find(path, wanted):
            key = record.flight_id, record.time.timestamp()
            if record.outcome is Outcome.OPEN:
                under_way[key] = record
            else:
                under_way.pop(key, None)
                yield record
    yield from under_way.values()


def find(path: Path, wanted: dict[str, str]) -> Iterator[Found]:
    """The records in a file whose fields have the values in `wanted`; none when the file has just been removed.

    Raises:
        DocumentError: a line that may be one is no record.

    """
    needle = _HANDOFF
    for name, value in wanted.items():
        needle = b'"%s":%s' % (name.encode(), msgspec.json.encode(value))
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                yield from _find(path, text, needle, wanted)
    except FileNotFoundError:
        return


def _find(path: Path, text: mmap.mmap, needle: bytes, wanted: dict[str, str]) -> Iterator[Found]:
    end = 0
    while (at := text.find(needle, end)) >= 0:
        start, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at) + 1
        if not end:
            return  # it is being written
        try:
            line = read_line(text[start:end])
            if line.kind is not Kind.HANDOFF or line.erased:
                continue
            record = record_in(line.record)
        except (BrokenLineError, msgspec.DecodeError, UnicodeDecodeError) as error:
            number = text[:start].count(b"\n") + 1
            message = f"no record: {error}; `phoenixflight recorder verify` tells more"
            raise DocumentError([Problem(str(path), number, 1, message)]) from None
        if all(getattr(record, name) == value for name, value in wanted.items()):
            yield Found(path, start, end, line, record)
