"""What stands for a caller that is gone while what it asked for goes on, since it is done once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.messages import Fields, ResponseHead

if TYPE_CHECKING:
    from gateway.proxy.downstream import DownstreamConnection


class AbsentCaller:
    """Takes everything, and passes nothing on."""

    __slots__ = ("codec", "destination", "listener", "principal")

    congested = False

    def __init__(self, was: DownstreamConnection) -> None:
        self.principal = was.principal
        self.codec = was.codec
        self.listener = was.listener
        self.destination = was.destination

    def send_response(self, stream: int, head: ResponseHead, *, ended: bool) -> None:
        """Nobody gets the head."""

    def send_data(self, stream: int, data: bytes) -> bool:
        """Nobody gets this piece; the next one is welcome."""
        return True

    def end(self, stream: int, trailers: Fields | None) -> None:
        """Nobody gets to know."""

    def reset(self, stream: int) -> None:
        """Nobody gets to know."""

    def consumed(self, stream: int, size: int) -> None:
        """All of the request has come."""

    def pause(self) -> None:
        """All of the request has come."""

    def resume(self) -> None:
        """All of the request has come."""

    def release(self, stream: int) -> None:
        """The stream was given back when the caller went."""
