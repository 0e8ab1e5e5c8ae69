"""What the lines of a chain hold.  Pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec


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
