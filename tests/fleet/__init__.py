"""Agents in processes of their own, which can be killed, and callers that tell what became of every packet."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import member
from tests.waiting import free_port


class Read(NamedTuple):
    """A request whose head has reached an agent."""

    at: float
    """Seconds since the epoch."""
    method: str
    packet: str
    """Its id."""


@dataclass
class Worker:
    """A process that is one agent; `module` has what it serves."""

    folder: Path
    name: str
    protocol: str = "http/1.1"
    settings: dict[str, Any] = field(default_factory=dict)
    module: str = "tests.fleet.plain"
    port: int = field(default_factory=free_port)
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """Start it, under the same port as ever; `wait` waits for it."""
        self.starts += 1
        own = {"name": self.name, "port": self.port, "protocol": self.protocol, "record": str(self._record())}
        settings = {**own, **self.settings}
        self._record().touch()
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module, json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def wait(self, said: str = "serving") -> None:
        """Wait until it says so."""
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline().decode().strip() == said, f"{self.name} ended"

    def join(self) -> None:
        """Have it register."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(b"join\n")
        self.process.stdin.flush()
        self.wait("joined")

    def leave(self) -> None:
        """Ask it to go."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def ended(self) -> int:
        """Wait for its end."""
        assert self.process is not None
        return self.process.wait(20)

    def read(self, start: int | None = None) -> list[Read]:
        """What has reached it, in its whole life or since it was started for the `start`-th time."""
        lives = range(1, self.starts + 1) if start is None else [start]
        lines = [line.split() for life in lives for line in self._record(life).read_text().splitlines()]
        return [Read(float(at), method, packet.strip('"')) for at, method, packet in lines]

    def _record(self, start: int | None = None) -> Path:
        return self.folder / f"{self.name}.{start or self.starts}.txt"

    @property
    def member(self) -> dict[str, Any]:
        """Its entry in agents.yaml."""
        return member(self.port, self.name, protocol=self.protocol)


def start(workers: list[Worker]) -> None:
    """Start all of them, side by side."""
    for worker in workers:
        worker.spawn()
    for worker in workers:
        worker.wait()


def stop(workers: list[Worker]) -> None:
    """End whoever still runs."""
    for worker in workers:
        if worker.process is not None:
            worker.kill()
            for pipe in (worker.process.stdin, worker.process.stdout):
                assert pipe is not None
                pipe.close()


def numbers(exposition: str, name: str) -> dict[str, float]:
    """The samples of the metric `name`, by their labels as they are written."""
    found = {}
    for line in exposition.splitlines():
        sample, _, value = line.rpartition(" ")
        family, _, labels = sample.partition("{")
        if family == name:
            found[labels.rstrip("}")] = float(value)
    return found
