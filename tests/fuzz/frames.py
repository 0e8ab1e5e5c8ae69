"""From fuzzed bytes to HTTP/2: as they are, or as records of which well-formed frames are made."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
MAX_FRAMES = 200
_RECORD = struct.Struct(">BBBH")
"""Type, flags, stream, length of the payload that follows."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame (RFC 9113 section 4.1)."""
    size = len(payload)
    return struct.pack(">BHBBI", size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def framed(records: bytes) -> bytes:
    """`records` as frames, so that a change of some bytes does not cost all that come after."""
    out: list[bytes] = []
    at = 0
    while at + _RECORD.size <= len(records) and len(out) < MAX_FRAMES:
        kind, flags, stream, size = _RECORD.unpack_from(records, at)
        at += _RECORD.size
        out.append(frame(kind, flags, stream, records[at : at + size]))
        at += size
    return b"".join(out)


def record(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """What `framed` makes this frame of."""
    return _RECORD.pack(kind, flags, stream, len(payload)) + payload


def wire(data: bytes) -> tuple[int, bytes]:
    """A mode that decides what this side does, and what the peer sends after its preface."""
    mode, rest = (data[0] if data else 0), data[1:]
    return mode, rest if mode & 1 else framed(rest)
