"""Lines in a chain: each says what it holds by a digest, and follows from the one before by a hash.  Pure.

A line is one JSON object, always written in the same way (`Line.text`)::

    {"seq":7,"kind":"handoff","digest":"…","hash":"…","salt":"…","record":{…}}

    digest = SHA-256(salt " " record)             of the texts as they stand in the line
    hash   = SHA-256(previous-hash " " seq " " kind " " digest)

All hashes are in hexadecimal; before the first line stands a hash of 64 zeros.  The chain is over digests, not over
what is digested: a record can be taken out later, with its salt, and the chain holds.  Without its salt nobody can
find out from a digest what the record was by trying.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from hashlib import sha256
from typing import NamedTuple

import msgspec

SALT_BYTES = 16
_SALTS_AT_ONCE = 64
"""Randomness is asked of the kernel for so many lines: that costs as much as for one."""


class Kind(Enum):
    """What a line holds."""

    SEGMENT = "segment"
    """The head of a file: a `SegmentHead`."""
    HANDOFF = "handoff"
    """A `gateway.recorder.Record`."""
    HEAD = "head"
    """A signature over the line before: a `SignedHead`."""
    LOST = "lost"
    """Records could not be kept: a `Lost`."""
    REPAIRED = "repaired"
    """The end of the chain was not as it should be when the gateway started: a `Repaired`."""
    DROPPED = "dropped"
    """The oldest file was removed for its age, or for want of room: a `Dropped`."""
    ERASED = "erased"
    """Records of a conversation were taken out: an `Erased`."""


class Position(NamedTuple):
    """Where a chain stands after a line."""

    sequence: int
    hash: str


START = Position(0, "0" * 64)
"""Before the first line."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line, as it is read."""

    seq: int
    kind: Kind
    digest: str
    hash: str
    salt: str = ""
    """Empty, with the record, where it was erased."""
    record: msgspec.Raw = msgspec.Raw()

    @property
    def erased(self) -> bool:
        """Whether its record was taken out."""
        return not bytes(self.record)

    def text(self) -> bytes:
        """The line as it has to stand in a file, with its end."""
        begin = b'{"seq":%d,"kind":"%s","digest":"%s","hash":"%s"' % (
            self.seq,
            self.kind.value.encode(),
            self.digest.encode(),
            self.hash.encode(),
        )
        if self.erased:
            return begin + b"}\n"
        return b'%s,"salt":"%s","record":%s}\n' % (begin, self.salt.encode(), bytes(self.record))

    def without_record(self) -> Line:
        """The line after its record was erased."""
        return Line(self.seq, self.kind, self.digest, self.hash)


class SegmentHead(msgspec.Struct, frozen=True):
    """The first line of each file."""

    chain: str
    """The same in all files of a chain, and in no other."""
    segment: int
    """Of the files of this chain, from 1."""
    sequence: int
    """Of the last line of the file before; so is `previous`, its hash."""
    previous: str
    time: str
    """UTC, in the form of RFC 3339; so are all times here."""


class SignedHead(msgspec.Struct, frozen=True):
    """Says by a signature where the chain stood at a time."""

    time: str
    sequence: int
    hash: str
    key: str
    """Which one signed: the first 16 digits of the SHA-256 of its public half (SubjectPublicKeyInfo, DER)."""
    signature: str
    """Over `signed_text`, in base64."""


class Lost(msgspec.Struct, frozen=True):
    """Records that could not be kept, told as soon as something can be written again."""

    count: int
    since: str
    until: str
    why: str


class Repaired(msgspec.Struct, frozen=True):
    """What a start found at the end of the chain."""

    time: str
    torn_bytes: int = 0
    """Of a last line that was not whole; they were set aside."""
    missing: int = 0
    """Lines that had been there for certain, and were not any more."""
    head_gone: bool = False
    """The file that says how far the chain goes for certain was gone, or not to be read."""


class Dropped(msgspec.Struct, frozen=True):
    """The oldest file was removed."""

    time: str
    through: int
    """Sequence of the last line that went; `hash` is its hash."""
    hash: str


class Erased(msgspec.Struct, frozen=True):
    """Records were taken out of their lines."""

    time: str
    request: str
    conversation: str
    """The SHA-256 of its name."""
    sequences: tuple[tuple[int, int], ...]
    """Of the lines, as ranges with both ends."""
    count: int


class Head(msgspec.Struct, frozen=True):
    """Beside the files: how far the chain goes for certain."""

    chain: str
    sequence: int
    hash: str
    time: str
    key: str = ""
    signature: str = ""
    """Over `synced_text`; both are empty without a key."""


def signed_text(chain: str, position: Position) -> bytes:
    """What the signature of a `SignedHead` is over."""
    return b"phoenixflight recorder head %s %d %s" % (chain.encode(), position.sequence, position.hash.encode())


def synced_text(chain: str, position: Position) -> bytes:
    """What the signature of a `Head` is over: not the same, so that a line of old can never stand for it."""
    return b"phoenixflight recorder end %s %d %s" % (chain.encode(), position.sequence, position.hash.encode())


class Sealer:
    """Makes lines of records, one after the other."""

    def __init__(self, position: Position, entropy: Callable[[int], bytes]) -> None:
        self.position = position
        self._entropy = entropy
        self._salts: list[str] = []

    def _salt(self) -> str:
        if not self._salts:
            random = self._entropy(SALT_BYTES * _SALTS_AT_ONCE).hex()
            size = 2 * SALT_BYTES
            self._salts = [random[at : at + size] for at in range(0, len(random), size)]
        return self._salts.pop()

    def seal(self, kind: Kind, content: bytes) -> bytes:
        """The next line, with its end.

        Args:
            kind: what `content` is.
            content: JSON on one line.

        """
        sequence, previous = self.position
        sequence += 1
        salt = self._salt()
        digest = sha256(b"%s %s" % (salt.encode(), content)).hexdigest()
        name = kind._value_
        link = sha256(f"{previous} {sequence} {name} {digest}".encode()).hexdigest()
        self.position = Position(sequence, link)
        begin = f'{{"seq":{sequence},"kind":"{name}","digest":"{digest}","hash":"{link}","salt":"{salt}","record":'
        return b"%s%s}\n" % (begin.encode(), content)


class BrokenLineError(ValueError):
    """A line that is not as it was written, or not where it was; the message says how."""


_decode = msgspec.json.Decoder(Line).decode


def read_line(text: bytes) -> Line:
    """The line that `text` is, end and all; whether it stands where it should is for `follow` to say.

    Raises:
        BrokenLineError: it is none, or its record is not what it was.

    """
    try:
        line = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenLineError(f"no line of a recorder: {error}") from None
    if line.text() != text:
        raise BrokenLineError("the line is not as it was written")
    if not line.erased:
        digest = sha256(b"%s %s" % (line.salt.encode(), bytes(line.record))).hexdigest()
        if digest != line.digest:
            raise BrokenLineError("the record is not what it was: its digest is another one")
    return line


def follow(position: Position, line: Line) -> Position:
    """Where the chain stands after `line`, which has to be the next one after `position`.

    Raises:
        BrokenLineError: it is not.

    """
    expected = position.sequence + 1
    if line.seq != expected:
        what = "is missing" if line.seq > expected else "should follow"
        raise BrokenLineError(f"sequence {expected} {what}; here is {line.seq}")
    link = sha256(f"{position.hash} {line.seq} {line.kind.value} {line.digest}".encode()).hexdigest()
    if link != line.hash:
        raise BrokenLineError(
            f"it does not follow from sequence {position.sequence}: this line, or that one, is not what it was"
        )
    return Position(line.seq, line.hash)


def ranges(sequences: list[int]) -> tuple[tuple[int, int], ...]:
    """`sequences`, which rise, as ranges with both ends."""
    found: list[tuple[int, int]] = []
    for sequence in sequences:
        if found and found[-1][1] == sequence - 1:
            found[-1] = found[-1][0], sequence
        else:
            found.append((sequence, sequence))
    return tuple(found)
