"""Listening sockets: made here, or inherited, and left without losing who already connected."""

from __future__ import annotations

import socket

BACKLOG = 1024
"""Connections that the system keeps for us until they are accepted."""


def listening(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Sockets that listen on every address that `host` stands for.

    Args:
        host: a name or an address.
        port: 0 has the system choose one, the same for all of them.
        reuse_port: let sockets of other processes of the same user listen there, too (SO_REUSEPORT).

    Raises:
        OSError: an address cannot be bound.

    """
    made: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            made.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], made[0].getsockname()[1] if port == 0 else port, *address[2:]))
            one.listen(BACKLOG)
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


def waiting(listener: socket.socket) -> list[socket.socket]:
    """The connections in the queue of `listener`, which does not block, accepted."""
    accepted: list[socket.socket] = []
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return accepted
        except ConnectionAbortedError:
            continue  # it was in the queue, and went away
        connection.setblocking(False)
        accepted.append(connection)
