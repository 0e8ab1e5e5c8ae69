"""Starts gateways quickly: a process that has imported everything forks one for each.

``phoenixflight run`` takes over a second of a core to import what it needs, and the suite starts hundreds.  What is
forked is a process of its own that runs the same command, in the environment that the suite was started with.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path

_LOADED_LATE = ("uvloop", "gateway.control.shared", "gateway.telemetry.over_http", "gateway.leases.redis_leases")
"""What some gateways import only when they know their configuration."""


class Forked:
    """A process that was forked for us: as much of `subprocess.Popen` as tests use."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        """`end` has its exit code to read when it has ended."""
        self.pid = pid
        self.returncode: int | None = None
        self._end = end

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; ``None`` while it runs."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and give its exit code.

        Raises:
            subprocess.TimeoutExpired: it goes on.

        """
        if self.returncode is None:
            readable, _, _ = select.select([self._end], [], [], timeout)
            if not readable:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self.returncode = int(self._end.recv(16))
            self._end.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that forks: in the network that the test is in when it is started."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def start(self, arguments: list[str], log: Path) -> Forked:
        """``phoenixflight`` with `arguments`, whose output is appended to `log`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._socket, [json.dumps([arguments, str(log)]).encode()], [theirs.fileno()])
            return Forked(int(ours.recv(16)), ours)

    def close(self) -> None:
        """End it; what it forked goes on."""
        self._socket.close()
        self._process.wait()


def _serve(orders: socket.socket) -> None:
    from gateway.cli import main

    for name in _LOADED_LATE:
        __import__(name)
    gc.collect()
    gc.freeze()
    waiting = selectors.DefaultSelector()
    waiting.register(orders, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.data is not None:
                _tell_end(waiting, key)
                continue
            order, descriptors, _, _ = socket.recv_fds(orders, 65536, 1)
            if not order:
                return
            end = socket.socket(fileno=descriptors[0])
            pid = os.fork()
            if pid == 0:
                for each in [*waiting.get_map().values()]:
                    os.close(each.fd)
                    if each.data is not None:
                        each.data[1].close()
                end.close()
                orders.detach()
                waiting.close()
                arguments, log = json.loads(order)
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                os.dup2(output, 1)
                os.dup2(output, 2)
                os.close(output)
                sys.argv = ["phoenixflight", *arguments]
                main()
            waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, end))
            end.send(b"%d" % pid)


def _tell_end(waiting: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, end = key.data
    with end, contextlib.suppress(OSError):  # nobody may be there to be told
        end.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    waiting.unregister(key.fd)
    os.close(key.fd)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
