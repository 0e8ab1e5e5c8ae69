"""JSON documents out of a body that passes by, each held in a bounded window until it is whole."""

from __future__ import annotations

from typing import Final

import msgspec

MAX_DOCUMENT: Final = 64 * 1024
"""Bytes of a document that is read whole, which takes about a millisecond; of a longer one only the end is."""
TAIL: Final = 16 * 1024
"""Bytes of that end."""
_BEGINNING: Final = 64
_TRIES: Final = 4
_KEY: Final = b'"usage"'
"""In JSON these seven bytes are a whole string: within one, quotes are escaped."""


class Window:
    """One document."""

    __slots__ = ("_beginning", "_bytes", "_cut")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._beginning = b""
        self._cut = False

    def __len__(self) -> int:
        """Bytes that are held."""
        return len(self._bytes)

    def take(self, piece: bytes) -> None:
        """A piece of it."""
        held = self._bytes
        held += piece
        if len(held) > MAX_DOCUMENT or self._cut:
            if not self._cut:
                self._beginning = bytes(held[:_BEGINNING])
                self._cut = True
            if len(held) > MAX_DOCUMENT:
                del held[:-TAIL]

    def empty(self) -> object:
        """The document, which has come to its end, if it says something of usage; else ``None``."""
        held, cut = bytes(self._bytes), self._cut
        if held or cut:
            self._bytes.clear()
            self._cut = False
        if _KEY not in held:
            return None
        return _end_of(held[-TAIL:], self._beginning) if cut else _decoded(held)


def _decoded(text: bytes) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _end_of(tail: bytes, beginning: bytes) -> object:
    """The last members of an object that is too long, from its own ``usage`` on.

    With a bracket before it, such an end is JSON exactly if the key is one of the outermost object's.
    """
    leads = [b"{"]
    if b'"type":"response.' in beginning.replace(b" ", b""):
        leads.append(b'{"response":{')
    at = len(tail)
    for _ in range(_TRIES):
        at = tail.rfind(_KEY, 0, at)
        if at < 0:
            break
        for lead in leads:
            document = _decoded(lead + tail[at:])
            if document is not None:
                return document
    return None
