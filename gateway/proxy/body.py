"""A request's body of which something must be known before an agent may have all of it.  Sans-IO.

A body with a ``content-digest`` goes on one piece behind, so that no agent takes it for whole before it matches.
An envelope goes on only once it is whole, and the gate has held it against the head; so does the body of a packet that
is done once, after the ledger was asked.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.packet.digest import MISMATCH, DigestCheck
from gateway.packet.envelope import MAX_BYTES
from gateway.refusal import Reason, Refusal

Piece = tuple[bytes, int]
"""A piece of body, and what it counts for in flow control."""

_TAMPERED = Refusal(Reason.MALFORMED_PACKET, MISMATCH)
_TOO_LARGE = Refusal(
    Reason.BODY_TOO_LARGE, f"an envelope has at most {MAX_BYTES} bytes; send larger payloads in binary mode"
)


class GuardedBody:
    """Takes a body in pieces, and gives out what may go on."""

    __slots__ = ("_digest", "_hold", "_max_bytes", "_tail", "whole")

    def __init__(
        self, digest: DigestCheck | None, *, structured: bool, hold: Callable[[bytes], Refusal | None] | None = None
    ) -> None:
        """Nothing has come yet.

        Args:
            digest: what the body must match.
            structured: it is an envelope.
            hold: told of each piece of a body that goes on once it is whole; gives why there is no room for it.

        """
        self._digest = digest
        self._hold = hold
        self._max_bytes = MAX_BYTES if structured else None
        self._tail: Piece | None = None
        self.whole = bytearray() if structured or hold is not None else None
        """What has come of a body that goes on only once it is whole."""

    def take(self, data: bytes, size: int) -> Piece | Refusal | None:
        """Take a piece; gives the one that may go on now, or why nothing may."""
        if self._digest is not None:
            self._digest.update(data)
        whole = self.whole
        if whole is not None:
            whole += data
            if self._max_bytes is not None and len(whole) > self._max_bytes:
                return _TOO_LARGE
            return self._hold(data) if self._hold is not None else None
        tail, self._tail = self._tail, (data, size)
        return tail

    def end(self) -> Piece | Refusal | None:
        """The body is whole; gives its last piece, or why no agent may have it.

        What an envelope says is for the gate to see to.
        """
        if self._digest is not None and not self._digest.matches():
            return _TAMPERED
        return self._tail
