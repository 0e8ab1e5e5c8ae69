"""Whether a chain is what was written: any edit, loss, change of order or cut is found, and named.  Pure.

Enters: files as lines, the `Head` beside them, public keys.  Leaves: a `Report`, with the first `Flaw` if there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec

from gateway.packet.keys import Key
from gateway.recorder.chain import START, BrokenLineError, follow, read_line, signed_text, synced_text
from gateway.recorder.heads import verifies
from gateway.recorder.line import Dropped, Erased, Head, Kind, Line, Lost, Position, Repaired, SegmentHead, SignedHead

Content = TypeVar("Content", bound=msgspec.Struct)


class Flaw(NamedTuple):
    """The first thing that is wrong, and where."""

    file: str
    line: int
    """From 1."""
    sequence: int
    """Of the line that is wrong, or that should be there."""
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: sequence {self.sequence}: {self.message}"


@dataclass(slots=True)
class Report:
    """What a chain came to."""

    files: int = 0
    records: int = 0
    """Of packets, erased ones included."""
    erased: int = 0
    lost: int = 0
    """Records that the gateway could not keep, as it tells itself."""
    removed_through: int = 0
    """The last sequence that was removed for its age, or for want of room."""
    heads: int = 0
    """Signed ones."""
    last_signed: SignedHead | None = None
    end: Position = START
    torn_bytes: int = 0
    """After the last whole line: a gateway has died, and will repair it when it starts, or is just writing."""
    flaw: Flaw | None = None


class _FlawError(Exception):
    def __init__(self, sequence: int, message: str) -> None:
        super().__init__(message)
        self.sequence = sequence


@dataclass(slots=True)
class _Walk:
    """What is known so far."""

    head: Head | None
    keys: Sequence[Key]
    anchors: Sequence[Position]
    report: Report = field(default_factory=Report)
    first: SegmentHead | None = None
    first_file: str = ""
    segment: int = 0
    position: Position = START
    gone: list[tuple[str, int, int]] = field(default_factory=list)
    """File, line and sequence of records that were taken out."""
    erased: list[tuple[int, int]] = field(default_factory=list)
    """What erasures say that they took out."""
    dropped: set[Position] = field(default_factory=set)

    def step(self, file: str, number: int, text: bytes) -> None:
        """Take the next line.

        Raises:
            _FlawError: it is wrong.

        """
        expected = self.position.sequence + 1
        try:
            line = read_line(text)
        except BrokenLineError as error:
            raise _FlawError(expected, str(error)) from None
        if (line.kind is Kind.SEGMENT) != (number == 1):
            raise _FlawError(expected, "each file begins with one line of the kind segment, and has no other")
        if number == 1:
            self._begin_segment(file, line)
            expected = self.position.sequence + 1
        try:
            self.position = follow(self.position, line)
        except BrokenLineError as error:
            raise _FlawError(expected, str(error)) from None
        self._weigh(file, number, line)
        at = self.position
        for known in (self.head, *self.anchors):
            if known is not None and known.sequence == at.sequence and known.hash != at.hash:
                raise _FlawError(at.sequence, f"another line was here when its hash was noted, {known.hash}")

    def _begin_segment(self, file: str, line: Line) -> None:
        head = _content(line, SegmentHead)
        end = Position(head.sequence, head.previous)
        named = file.rpartition("segment-")[2].partition(".")[0]
        if self.first is None and named != f"{head.segment:08}":
            sequence = 1 if named == f"{1:08}" else line.seq
            raise _FlawError(sequence, f"the first line is of file {head.segment}")
        if self.first is None:
            self.first, self.first_file = head, file
            self.position = end
            if (head.segment == 1) != (end == START):
                raise _FlawError(line.seq, "the head of the file contradicts itself")
        elif head.chain != self.first.chain:
            raise _FlawError(line.seq, "the file is of another chain")
        elif head.segment != self.segment + 1:
            raise _FlawError(self.position.sequence + 1, f"file {self.segment + 1} is missing; here is {head.segment}")
        elif end != self.position:
            raise _FlawError(
                min(end.sequence, self.position.sequence) + 1,
                f"the file before ends at sequence {self.position.sequence}, and this one follows {end.sequence}",
            )
        self.segment = head.segment
        self.report.files += 1

    def _weigh(self, file: str, number: int, line: Line) -> None:
        report = self.report
        if line.kind is Kind.HANDOFF:
            report.records += 1
            if line.erased:
                report.erased += 1
                self.gone.append((file, number, line.seq))
            return
        if line.erased:
            raise _FlawError(line.seq, f"a line of the kind {line.kind.value} has lost its content")
        match line.kind:
            case Kind.HEAD:
                self._check_signature(line)
            case Kind.LOST:
                report.lost += _content(line, Lost).count
            case Kind.DROPPED:
                dropped = _content(line, Dropped)
                self.dropped.add(Position(dropped.through, dropped.hash))
            case Kind.ERASED:
                self.erased += _content(line, Erased).sequences
            case Kind.REPAIRED:
                found = _content(line, Repaired)
                if found.missing:
                    raise _FlawError(
                        line.seq, f"{found.missing} lines before this one were missing when the gateway started"
                    )
                if found.head_gone:
                    raise _FlawError(
                        line.seq, "when the gateway started, nothing told how far the chain went: lines may be missing"
                    )

    def _check_signature(self, line: Line) -> None:
        head, before = _content(line, SignedHead), line.seq - 1
        assert self.first is not None
        if head.sequence != before:
            raise _FlawError(line.seq, f"it signs sequence {head.sequence}, and stands after {before}")
        text = signed_text(self.first.chain, Position(head.sequence, head.hash))
        if self.keys and not any(verifies(key, head.signature, text) for key in self.keys):
            raise _FlawError(line.seq, f"the signature is not by a key that was given; it says key {head.key}")
        self.report.heads += 1
        self.report.last_signed = head

    def end(self, file: str, number: int) -> Flaw | None:
        """What only the whole of it tells."""
        first, head, at = self.first, self.head, self.position
        if first is None:
            return Flaw(file, number, 1, "no line of a recorder is here")
        before = Position(first.sequence, first.previous)
        if before != START and before not in self.dropped:
            message = f"what came up to sequence {before.sequence} is gone, and nothing says that it was removed"
            return Flaw(self.first_file, 1, before.sequence, message)
        self.report.removed_through = before.sequence
        told = deque(sorted(self.erased))
        through = 0
        for where, at_line, sequence in self.gone:
            while told and told[0][0] <= sequence:
                through = max(through, told.popleft()[1])
            if sequence > through:
                return Flaw(where, at_line, sequence, "the record was taken out, and no erasure says so")
        if head is None:
            return Flaw(file, number, at.sequence, "nothing tells how far the chain goes: head.json is missing")
        if head.chain != first.chain:
            return Flaw(file, number, at.sequence, "head.json is of another chain")
        text = synced_text(head.chain, Position(head.sequence, head.hash))
        if self.keys and not any(verifies(key, head.signature, text) for key in self.keys):
            return Flaw(file, number, head.sequence, "head.json is not signed by a key that was given")
        for known in (Position(head.sequence, head.hash), *self.anchors):
            if known.sequence > at.sequence:
                message = f"the chain ends before it, and went to sequence {known.sequence} at least: its tail was cut"
                return Flaw(file, number, at.sequence + 1, message)
        return None


def verify(
    files: Iterable[tuple[str, Iterable[bytes]]],
    head: Head | None,
    keys: Sequence[Key] = (),
    anchors: Sequence[Position] = (),
) -> Report:
    """Go over a whole chain.

    Args:
        files: name (``segment-00000001.jsonl``, after a path) and lines, in the order of the chain.
        head: what stands beside the files; read before them.
        keys: any of which must have signed each signed head, and `head`; none to leave signatures unchecked.
        anchors: where the chain stood at some time, as was noted elsewhere.

    """
    walk = _Walk(head, keys, anchors)
    report = walk.report
    name, number, torn = "", 0, b""
    for file, lines in files:
        if torn:  # only at the very end it may be a line that is being written
            report.flaw = Flaw(name, number, walk.position.sequence + 1, "the line is not whole")
            return report
        name = file
        for number, text in enumerate(lines, 1):
            if not text.endswith(b"\n"):
                torn = text
                break
            try:
                walk.step(file, number, text)
            except _FlawError as flaw:
                report.flaw = Flaw(file, number, flaw.sequence, str(flaw))
                return report
    report.torn_bytes = len(torn)
    report.end = walk.position
    report.flaw = walk.end(name, number)
    return report


def _content(line: Line, kind: type[Content]) -> Content:
    try:
        return msgspec.json.decode(line.record, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _FlawError(line.seq, f"no content of the kind {line.kind.value}: {error}") from None
