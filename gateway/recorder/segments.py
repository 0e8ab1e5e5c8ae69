"""The files of a chain: one process at a time adds to them, and repairs their end when it begins.

A folder has a chain for each process that records: ``chain-0``, ``chain-1`` and so on.  In it are ``segment-*.jsonl``,
``head.json`` (how far the chain goes for certain), ``lock``, and perhaps ``torn-*``, what was set aside.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.recorder.chain import START, BrokenLineError, Sealer, follow, read_line, signed_text, synced_text
from gateway.recorder.heads import Signer
from gateway.recorder.line import Dropped, Head, Kind, Position, Repaired, SegmentHead, SignedHead
from gateway.recorder.spec import Fsync, RecorderSpec

log = logging.getLogger(__name__)

MAX_CHAINS = 1024
MAX_TORN = 16
"""Ends of files that are kept aside; older ones are removed."""

_encode = msgspec.json.Encoder().encode


class InUseError(Exception):
    """Another process adds to this chain."""


class Tail(NamedTuple):
    """How far a file is good."""

    head: SegmentHead | None
    """``None`` when not even its first line is good."""
    position: Position
    good: int
    """Bytes; so is `size`."""
    size: int
    signed: bool
    """Its last good line is a signed head."""


def timestamp(now: float) -> str:
    """`now`, seconds since the epoch, as it stands in records."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def chains_in(folder: Path) -> list[Path]:
    """The folders of the chains in `folder`, or `folder` itself when it is one.

    Raises:
        OSError: it cannot be read.

    """
    found = sorted((each for each in folder.iterdir() if each.name.startswith("chain-")), key=_number)
    return found or ([folder] if segments_in(folder) else [])


def segments_in(chain: Path) -> list[Path]:
    """The files of a chain, in its order."""
    return sorted(each for each in chain.iterdir() if each.name.startswith("segment-") and each.suffix == ".jsonl")


def read_head(chain: Path) -> Head | None:
    """What ``head.json`` says; ``None`` when it is not there, or is not to be read."""
    try:
        return msgspec.json.decode((chain / "head.json").read_bytes(), type=Head)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _number(path: Path) -> tuple[int, str]:
    digits = path.name.partition("-")[2].partition(".")[0]
    return int(digits) if digits.isdecimal() else 0, path.name


def _tail(path: Path) -> Tail:
    head: SegmentHead | None = None
    position, good, signed = START, 0, False
    with path.open("rb") as lines:
        with contextlib.suppress(BrokenLineError, msgspec.DecodeError):
            for text in lines:
                line = read_line(text)
                if head is None:
                    first = msgspec.json.decode(line.record, type=SegmentHead)
                    position = follow(Position(first.sequence, first.previous), line)
                    head = first
                else:
                    position = follow(position, line)
                good += len(text)
                signed = line.kind is Kind.HEAD
        size = os.fstat(lines.fileno()).st_size
    return Tail(head, position, good, size, signed)


class ChainFolder:
    """A chain that this process adds to.  Not for two threads at a time, but for what says so."""

    def __init__(
        self,
        folder: Path,
        spec: RecorderSpec,
        signer: Signer | None,
        *,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        """Lock the chain in `folder`, and repair its end.

        Args:
            folder: of this chain; it is made if it is not there.
            spec: how safely, and for how long.
            signer: signs heads, if there is one.
            clock: seconds since the epoch.
            entropy: random bytes, so many.

        Raises:
            InUseError: another process has it.
            OSError: it cannot be written.

        """
        self.folder = folder
        self._spec = spec
        self._signer = signer
        self._clock = clock
        self._entropy = entropy
        self._file = -1
        self._broken = False
        """The last write may have left something behind the good part."""
        self._signed = 0
        """The sequence of the last signed head."""
        self._synced = START
        self.chain = ""
        self.segment = 0
        self.size = 0
        """Bytes of the newest file."""
        self._began = 0.0
        self._first = 0
        """Sequence of its first line."""
        self.closed_segments = self.closed_bytes = 0
        self.removing = threading.Lock()
        """Held while files are removed or replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise InUseError(str(folder)) from None
        try:
            self._open()
        except BaseException:
            self._let_go()
            raise

    @classmethod
    def claim(
        cls,
        folder: Path,
        spec: RecorderSpec,
        signer: Signer | None,
        *,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> ChainFolder:
        """The first chain in `folder` that nobody has.

        Raises:
            OSError: it cannot be written.

        """
        for number in range(MAX_CHAINS):
            with contextlib.suppress(InUseError):
                return cls(folder / f"chain-{number}", spec, signer, clock=clock, entropy=entropy)
        raise OSError(f"{folder}: {MAX_CHAINS} processes record here already")

    # -- the beginning ----------------------------------------------------------------------------------

    def _open(self) -> None:
        for left in self.folder.glob("*.tmp"):
            left.unlink()
        head = read_head(self.folder)
        paths = segments_in(self.folder)
        tail = Tail(None, START, 0, 0, False)
        torn = 0
        while paths and (tail := _tail(paths[-1])).head is None:
            # Its first line was never whole: the file had just been begun.
            torn += tail.size
            self._set_aside(paths.pop(), b"")
        if tail.head is None:
            self.chain = self._entropy(16).hex()
            missing = head.sequence if head is not None else 0
            self._sealer = Sealer(START, self._entropy)
            self._begin_segment(1)
            self._report(Repaired(timestamp(self._clock()), torn, missing))
            return
        self.chain, self.segment, self._first = tail.head.chain, tail.head.segment, tail.head.sequence + 1
        self._sealer = Sealer(tail.position, self._entropy)
        self._synced = tail.position
        missing = max(0, head.sequence - tail.position.sequence) if head is not None else 0
        if missing or head is None:
            # What is there stays as it is, for people to look at.
            self._begin_segment(self.segment + 1)
        else:
            self._go_on(paths[-1], tail.head, tail)
            torn += tail.size - tail.good
        self._count()
        self._report(Repaired(timestamp(self._clock()), torn, missing, head is None))

    def _go_on(self, path: Path, head: SegmentHead, tail: Tail) -> None:
        """Add to a file that is there, less what is torn at its end."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        if tail.size > tail.good:
            with path.open("rb") as file:
                file.seek(tail.good)
                self._set_aside(path, file.read())
            os.ftruncate(self._file, tail.good)
        self.size, self._began = tail.good, datetime.fromisoformat(head.time).timestamp()
        self._signed = tail.position.sequence if tail.signed else 0

    def _set_aside(self, path: Path, rest: bytes) -> None:
        """Keep the whole of a file, or the `rest` of it, under another name."""
        aside = self.folder / f"torn-{path.stem.removeprefix('segment-')}-{int(self._clock() * 1000)}"
        if rest:
            aside.write_bytes(rest)
        else:
            path.rename(aside)
        for old in sorted(self.folder.glob("torn-*"), key=lambda each: each.stat().st_mtime)[:-MAX_TORN]:
            old.unlink()

    def _report(self, found: Repaired) -> None:
        """Tell of what was not as it should be."""
        if found.torn_bytes:
            log.warning("recorder: %s: the last line was torn; %d bytes are set aside", self.folder, found.torn_bytes)
        if found.missing:
            log.error("recorder: %s: %d lines are missing at the end of the chain", self.folder, found.missing)
        if found.head_gone:
            log.error("recorder: %s: head.json is gone; lines may be missing", self.folder)
        if found.torn_bytes or found.missing or found.head_gone:
            self.append([(Kind.REPAIRED, _encode(found))])
        self.sync()

    # -- adding -----------------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """Where the chain stands."""
        return self._sealer.position

    @property
    def full(self) -> bool:
        """Whether it is time for another file."""
        aged = self._clock() - self._began >= self._spec.segment_age_s
        return self.size >= self._spec.segment_bytes or (aged and self.has_lines)

    @property
    def has_lines(self) -> bool:
        """Whether the newest file has more than its first line."""
        return self.position.sequence > self._first

    def append(self, contents: Sequence[tuple[Kind, bytes]]) -> None:
        """Add lines, all or none.

        Raises:
            OSError: they cannot be written; the chain stands where it stood.

        """
        self._mend()
        before = self.position
        seal = self._sealer.seal
        text = b"".join([seal(kind, content) for kind, content in contents])
        try:
            self._write(text)
        except OSError:
            self._sealer.position = before
            self._broken = True
            raise
        self.size += len(text)

    def _write(self, text: bytes) -> None:
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def _mend(self) -> None:
        """Take off what a write that failed has left."""
        if self._broken:
            os.ftruncate(self._file, self.size)
            self._broken = False

    def sign(self) -> None:
        """Add a signed head, if there is a key, and anything new in the newest file.

        Raises:
            OSError: it cannot be written.

        """
        at = self.position
        if self._signer is None or at.sequence == self._signed or not self.has_lines:
            return
        signature = self._signer.sign(signed_text(self.chain, at))
        head = SignedHead(timestamp(self._clock()), at.sequence, at.hash, self._signer.keyid, signature)
        self.append([(Kind.HEAD, _encode(head))])
        self._signed = self.position.sequence

    def sync(self) -> None:
        """Have the disk have it, as far as the settings say, and write down how far the chain goes.

        Raises:
            OSError: that failed.

        """
        at = self.position
        if at == self._synced and (self.folder / "head.json").exists():
            return
        if self._spec.fsync is not Fsync.NEVER:
            os.fsync(self._file)
        head = Head(self.chain, at.sequence, at.hash, timestamp(self._clock()))
        if self._signer is not None:
            signature = self._signer.sign(synced_text(self.chain, at))
            head = msgspec.structs.replace(head, key=self._signer.keyid, signature=signature)
        replace_file(self.folder / "head.json", [_encode(head), b"\n"], durable=self._spec.fsync is not Fsync.NEVER)
        self._synced = at

    def rotate(self) -> None:
        """Begin another file.

        Raises:
            OSError: it cannot be made; the one before stays in use.

        """
        self._mend()
        self.sign()
        self.sync()
        at = self.position
        log.info("recorder: %s: segment %d ends at %d:%s", self.folder, self.segment, at.sequence, at.hash)
        self._begin_segment(self.segment + 1)
        self._count()

    def _begin_segment(self, number: int) -> None:
        path = self.folder / f"segment-{number:08}.jsonl"
        before = self._file, self.size, self.position
        head = SegmentHead(self.chain, number, *self.position, timestamp(self._clock()))
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o640)
        self.size = 0
        try:
            self.append([(Kind.SEGMENT, _encode(head))])
        except OSError:
            os.close(self._file)
            path.unlink()
            self._file, self.size, self._sealer.position = before
            self._broken = False
            raise
        if before[0] >= 0:
            os.close(before[0])
        self.segment, self._began = number, self._clock()
        self._first = self.position.sequence
        sync_folder(self.folder)

    # -- keeping ----------------------------------------------------------------------------------------

    @property
    def closed(self) -> list[Path]:
        """All files but the newest; none of them changes any more, but by erasure.  In any thread."""
        return [path for path in segments_in(self.folder) if _number(path)[0] < self.segment]

    def _count(self) -> None:
        closed = self.closed
        self.closed_segments = len(closed)
        self.closed_bytes = sum(path.stat().st_size for path in closed)

    def retain(self) -> None:
        """Close the newest file if it is time, and remove the oldest as far as they are too old or too many.

        It is said so in the chain first.

        Raises:
            OSError: that failed.

        """
        if self.full:
            self.rotate()
        oldest = self._clock() - self._spec.max_age_s
        closed = [(path, path.stat()) for path in self.closed]
        total = self.size + sum(status.st_size for _, status in closed)
        going: list[Path] = []
        for path, status in closed:
            if total <= self._spec.max_bytes and status.st_mtime >= oldest:
                break
            going.append(path)
            total -= status.st_size
        if not going:
            return
        after = [*(path for path, _ in closed), self.folder / f"segment-{self.segment:08}.jsonl"][1 : len(going) + 1]
        now = timestamp(self._clock())
        # One for each file: this may end between any two of them.
        told = [Dropped(now, *_end_before(path)) for path in after]
        self.append([(Kind.DROPPED, _encode(each)) for each in told])
        self.sync()
        with self.removing:
            for path in going:
                path.unlink()
        log.info("recorder: %s: removed %d segments, through %d", self.folder, len(going), told[-1].through)
        self._count()

    def close(self) -> None:
        """End; another process may go on.

        Raises:
            OSError: the last of it could not be written.

        """
        try:
            self._mend()
            self.sign()
            self.sync()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        os.close(self._lock)


def _end_before(path: Path) -> tuple[int, str]:
    """Where the chain stood before a file, as its first line says; nowhere, when that is not what it was."""
    try:
        with path.open("rb") as lines:
            head = msgspec.json.decode(read_line(lines.readline()).record, type=SegmentHead)
    except (BrokenLineError, msgspec.DecodeError) as error:
        log.error("recorder: %s:1: %s", path, error)
        return START
    return head.sequence, head.previous


def probe(folder: Path) -> None:
    """Find out whether something can be written in `folder`, or whether it can be made; leaves nothing behind.

    Raises:
        OSError: it cannot.

    """
    there = next(each for each in (folder, *folder.parents) if each.exists())
    with tempfile.TemporaryFile(dir=there) as file:
        file.write(bytes(4096))


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in `folder`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, pieces: Sequence[bytes] | Iterator[bytes], *, durable: bool = True) -> None:
    """Put `pieces` in the place of `path`, all or nothing; `durable` waits for the disk.

    Raises:
        OSError: it is as it was.

    """
    fresh = path.with_name(f"{path.name}.tmp")
    try:
        with fresh.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
