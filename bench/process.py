"""Child processes: started on a core, watched for their CPU and memory, stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_LOG_TAIL_LINES = 25
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class BenchFailure(Exception):
    """A part of the bench did not do what the measurement needs; the message is for a person."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Child:
    """A running process and where it logs."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def log_tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])

    def wait_listening(self, port: int) -> None:
        """Wait until it accepts connections.

        Raises:
            BenchFailure: it ended or took too long; with the tail of its log.

        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise BenchFailure(f"not listening after {START_TIMEOUT_S:.0f} s at most: {self.condition()}")

    def wait_ready(self, url: str) -> None:
        """Wait until `url` answers 200.

        Raises:
            BenchFailure: it ended or took too long; with the tail of its log.

        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url, trust_env=False).status_code == 200:
                    return
            time.sleep(0.1)
        raise BenchFailure(f"not ready after {START_TIMEOUT_S:.0f} s at most: {self.condition()}")

    def first_line(self) -> str:
        """Wait for the first line that it prints, and give it.

        Raises:
            BenchFailure: it ended or took too long; with the tail of its log.

        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while "\n" not in (text := self.log.read_text()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchFailure(f"nothing was printed: {self.condition()}")
            time.sleep(0.05)
        return text.partition("\n")[0]

    def condition(self) -> str:
        """Whether it still runs, and what it said last; for a person, after something failed."""
        ended = self.process.poll()
        how = "still runs" if ended is None else f"has ended with {ended}"
        return f"{self.name} {how}; its log ends:\n{self.log_tail()}"

    def stop(self) -> None:
        """End it and wait."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(name: str, command: list[str], log: Path, core: int | None) -> Child:
    """Start `command` on `core` (anywhere when ``None``), its output going to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: _settle(core),
        )
    return Child(name, process, log)


def run(command: list[str], core: int | None) -> bytes:
    """Run `command` on `core` to its end and give its standard output.

    Raises:
        BenchFailure: it ended with another status than 0; with what it said.

    """
    done = subprocess.run(command, capture_output=True, preexec_fn=lambda: _settle(core), check=False)
    if done.returncode:
        complaint = "\n".join(done.stderr.decode().splitlines()[-_LOG_TAIL_LINES:])
        raise BenchFailure(f"{' '.join(command)} ended with {done.returncode}:\n{complaint}")
    return done.stdout


def module(name: str, *arguments: object) -> list[str]:
    """The command line that runs a module of ours."""
    return [sys.executable, "-m", name, *map(str, arguments)]


def script(name: str) -> str:
    """The path of a command that was installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def _settle(core: int | None) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # nothing outlives the bench, however that ends
    if core is not None:
        os.sched_setaffinity(0, {core})


def cpu_s(pid: int) -> float:
    """User and system time of all threads of a process (clock_getcpuclockid(3), as the kernel numbers such clocks)."""
    return time.clock_gettime_ns(~pid << 3 | 2) / 1e9


class Watch:
    """The CPU time and memory of a process and the descendants that it has when the watch begins."""

    def __init__(self, pid: int) -> None:
        root = psutil.Process(pid)
        self._tree = [root, *root.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system time so far."""
        return sum(cpu_s(process.pid) for process in self._tree)

    def busy_s(self) -> float:
        """Time so far that the cores it is bound to were busy, whoever used them."""
        cores = psutil.cpu_times(percpu=True)
        bound = [cores[core] for core in self._tree[0].cpu_affinity()]
        return sum(sum(core) - core.idle - core.iowait - core.guest - core.guest_nice for core in bound)

    def rss_bytes(self) -> int:
        """Resident memory now; pages shared between the processes count for each."""
        return sum(process.memory_info().rss for process in self._tree)
