"""A request's body of which something must be known before an agent may have all of it.  Sans-IO.

A body with a ``content-digest`` goes on one piece behind, so that no agent takes it for whole before it matches.
An envelope goes on only once it is whole, and the gate has held it against the head.
"""

from __future__ import annotations

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

    __slots__ = ("_digest", "_tail", "envelope")

    def __init__(self, digest: DigestCheck | None, *, structured: bool) -> None:
        self._digest = digest
        self._tail: Piece | None = None
        self.envelope = bytearray() if structured else None
        """What has come of a body in structured mode."""

    def take(self, data: bytes, size: int) -> Piece | Refusal | None:
        """Take a piece; gives the one that may go on now, or why nothing may."""
        if self._digest is not None:
            self._digest.update(data)
        if self.envelope is not None:
            self.envelope += data
            return _TOO_LARGE if len(self.envelope) > MAX_BYTES else None
        tail, self._tail = self._tail, (data, size)
        return tail

    def end(self) -> Piece | Refusal | None:
        """The body is whole; gives its last piece, or why no agent may have it.

        What an envelope says is for the gate to see to.
        """
        if self._digest is not None and not self._digest.matches():
            return _TAMPERED
        return self._tail
