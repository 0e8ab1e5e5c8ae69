"""What every proxy is measured with."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

from bench import certs, machine, process
from bench.proxy import Kind, Proxy, Site, launch


class Bed:
    """The test bed: agents, certificates, a Redis where there is one, and every proxy started so far.

    Everything ends with `stack`, but proxies, which whoever launched them stops.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        pinned = machine.can_pin()
        self.proxy_core = machine.PROXY_CORE if pinned else None
        self.load_core = machine.LOAD_CORE if pinned else None
        self._folder = folder
        self._started = 0
        self._certs = folder / "certs"
        certs.mint(self._certs)
        command = process.module("bench.agents", self._certs)
        agents = process.start("agents", command, folder / "agents.log", self.load_core)
        stack.callback(agents.stop)
        ports = json.loads(agents.first_line())
        self.agents: list[int] = ports["agents"]
        self._tls_agents: list[int] = ports["tls_agents"]
        self._otlp: int = ports["otlp"]
        self._redis = process.free_port()
        if server := shutil.which("redis-server"):
            options = ("--port", str(self._redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
            redis = process.start("redis", [server, *options], folder / "redis.log", self.load_core)
            stack.callback(redis.stop)
            redis.wait_listening(self._redis)

    def launch(self, kind: Kind) -> Proxy:
        """Start a fresh process of a proxy; the caller stops it."""
        self._started += 1
        folder = self._folder / f"{kind.name}-{self._started}"
        site = Site(
            folder,
            self._certs,
            self.agents,
            self._tls_agents,
            self._otlp,
            self._redis,
            port=process.free_port(),
            admin=process.free_port(),
        )
        return launch(kind, site, self.proxy_core if kind.one_core else None)
