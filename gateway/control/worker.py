"""What a worker is given by its supervisor: sockets that listen already, by their file descriptors."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import msgspec


class Inherited(msgspec.Struct, frozen=True):
    """File descriptors, open in the worker from its start."""

    listeners: Mapping[str, tuple[int, ...]]
    """By the listener's name."""
    admin: int
    """A Unix socket that only the supervisor connects to."""

    def text(self) -> str:
        """For the command line of the worker."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, text: str) -> Inherited:
        """What `text` wrote."""
        return msgspec.json.decode(text, type=cls)

    def sockets(self, listener: str) -> list[socket.socket]:
        """Those of one listener."""
        return [socket.socket(fileno=each) for each in self.listeners[listener]]
