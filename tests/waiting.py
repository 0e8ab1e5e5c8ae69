"""Ports that are free, and waiting for what is about to come true."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable
from typing import Any

_FIRST_PORT, _LAST_PORT = 10_000, 32_000
"""Below those that the system gives to whoever connects, which would take a port that was free a moment ago."""
_ports = itertools.count(os.getpid() * 7919)
"""Far from those of the processes that were started next to this one, which go through the same ports."""


def free_port() -> int:
    """A port that nobody listens on now, and that this process has not given out for long."""
    while True:
        port = _FIRST_PORT + next(_ports) % (_LAST_PORT - _FIRST_PORT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def eventually(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """The first true value of `condition`, asked again until `timeout_s` has passed."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            assert value, "it did not come true in time"
            return value
        time.sleep(0.02)
