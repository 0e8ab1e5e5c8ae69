"""Reads along an answer: what it says of usage, while or after it passes by."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from gateway.headers import field_value
from gateway.messages import Fields
from gateway.packet import MalformedPacketError
from gateway.packet import fields as names
from gateway.packet.packet import parse_budget
from gateway.usage.tally import MAX_AMOUNT, MAX_UNITS, Tally
from gateway.usage.window import Window

_DATA: Final = b"data:"


class _Line(Enum):
    """What the line of events is that is under way."""

    START = 1
    """It has just begun."""
    DATA = 2
    OTHER = 3


class UsageReader:
    """Of one answer.  What the agent says in ``flight-usage`` goes before what the body says, unit by unit."""

    __slots__ = ("_after_cr", "_events", "_explicit", "_line", "_start", "_tally", "_window")

    def __init__(self, fields: Fields) -> None:
        """Begin with the `fields` of the answer's head."""
        content_type = (field_value(fields, b"content-type") or b"").partition(b";")[0].strip().lower()
        coding = (field_value(fields, b"content-encoding") or b"identity").strip().lower()
        self._events = content_type == b"text/event-stream"
        json = content_type == b"application/json" or content_type.endswith(b"+json")
        readable = (self._events or json) and coding == b"identity"
        self._window = Window() if readable else None
        self._line = _Line.START
        self._start = b""
        """Of a line of events that is too short yet to tell what it is."""
        self._after_cr = False
        self._tally = Tally()
        self._explicit = _stated(fields)

    @property
    def spent(self) -> dict[str, int]:
        """What has been told so far, by unit."""
        spent = self._tally.spent
        spent.update(self._explicit)
        return spent

    @property
    def read(self) -> dict[str, int]:
        """Of that, what ``flight-usage`` does not say."""
        return {unit: amount for unit, amount in self._tally.spent.items() if unit not in self._explicit}

    @property
    def held(self) -> int:
        """Bytes of the body that are kept in memory now."""
        return len(self._start) + (len(self._window) if self._window is not None else 0)

    def feed(self, data: bytes) -> bool:
        """A piece of the body; whether it told of usage."""
        if self._window is None:
            return False
        if self._events:
            return self._feed_events(data)
        self._window.take(data)
        return False

    def end(self, trailers: Fields | None) -> None:
        """The answer is whole."""
        if self._window is not None and not self._events:
            self._tally.add(self._window.empty())
        if trailers:
            self._explicit.update(_stated(trailers))

    def _feed_events(self, data: bytes) -> bool:
        """Server-sent events (WHATWG HTML, 9.2.6)."""
        if self._after_cr and data:
            data, self._after_cr = data.removeprefix(b"\n"), False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, rest = data.split(b"\n")
        told = False
        for piece in ended:
            told = self._end_line(piece) or told
        if rest:
            self._go_on(rest)
        return told

    def _go_on(self, piece: bytes) -> None:
        """More of a line."""
        if self._line is _Line.START:
            piece = self._start + piece
            if len(piece) < len(_DATA):
                self._start = piece
                return
            self._start = b""
            self._line = _Line.DATA if piece.startswith(_DATA) else _Line.OTHER
            piece = piece[len(_DATA) :]
        if self._line is _Line.DATA:
            assert self._window is not None
            self._window.take(piece)

    def _end_line(self, piece: bytes) -> bool:
        """The last of a line; whether it ended an event that told of usage."""
        assert self._window is not None
        empty = self._line is _Line.START and not self._start and not piece
        if piece:
            self._go_on(piece)
        if self._line is _Line.DATA:
            self._window.take(b"\n")
        self._line, self._start = _Line.START, b""
        return empty and self._tally.add(self._window.empty())


def _stated(fields: Fields) -> dict[str, int]:
    """The amounts in ``flight-usage``."""
    value = field_value(fields, names.USAGE)
    if value is None:
        return {}
    try:
        amounts = parse_budget(value)
    except MalformedPacketError:
        return {}
    stated = {unit: amount for unit, amount in amounts.items() if 0 <= amount <= MAX_AMOUNT}
    return dict(list(stated.items())[:MAX_UNITS])


def written(amounts: Mapping[str, int]) -> str:
    """As a Dictionary (RFC 9651 section 3.2): ``tokens=812, cost=3``."""
    return ", ".join(f"{unit}={amount}" for unit, amount in amounts.items())
