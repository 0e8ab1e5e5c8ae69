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
from hashlib import sha256

import msgspec

from gateway.recorder.line import Kind, Line, Position

SALT_BYTES = 16
_SALTS_AT_ONCE = 64
"""Randomness is asked of the kernel for so many lines: that costs as much as for one."""
START = Position(0, "0" * 64)
"""Before the first line."""


def signed_text(chain: str, position: Position) -> bytes:
    """What the signature of a `SignedHead` is over."""
    return b"phoenixflight recorder head %s %d %s" % (chain.encode(), position.sequence, position.hash.encode())


def synced_text(chain: str, position: Position) -> bytes:
    """What the signature of a `Head` is over: not the same, so that a line of old can never stand for it."""
    return b"phoenixflight recorder end %s %d %s" % (chain.encode(), position.sequence, position.hash.encode())


class Sealer:
    """Makes lines of records, one after the other."""

    def __init__(self, position: Position, entropy: Callable[[int], bytes]) -> None:
        self._sequence, self._hash = position
        self._entropy = entropy
        self._salts: list[str] = []

    @property
    def position(self) -> Position:
        """Where the chain stands."""
        return Position(self._sequence, self._hash)

    @position.setter
    def position(self, position: Position) -> None:
        self._sequence, self._hash = position

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
        sequence = self._sequence + 1
        salt = self._salt()
        digest = sha256(b"%s %s" % (salt.encode(), content)).hexdigest()
        name = kind._value_
        link = sha256(f"{self._hash} {sequence} {name} {digest}".encode()).hexdigest()
        self._sequence, self._hash = sequence, link
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
