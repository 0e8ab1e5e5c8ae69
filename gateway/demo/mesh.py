"""The demo's mesh on this machine: documents, certificates, the gateway and the agents."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from string import Template

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.control.certs_dev import issue_dev_certificates
from gateway.demo.peer import Settings
from gateway.demo.processes import Processes
from gateway.membership.file import load_agents
from gateway.routing import Agent

TRUST_DOMAIN = "mesh.local"
START_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.05
PORTS = range(10_000, 32_000)
"""Below those that the system gives to whoever asks for any, and could give away before the agent has begun."""


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """How an agent of ``agents.yaml`` is started."""

    module: str
    """Its module in this package, and its identity: replicas share both."""
    speaks: str
    """What it is made of, for people."""


AGENTS = {
    "planner": AgentProcess("planner", "A2A, streaming (a2a-sdk)"),
    "coder": AgentProcess("coder", "JSON in, SSE out (Starlette)"),
    "executor-1": AgentProcess("executor", "JSON (Starlette)"),
    "executor-2": AgentProcess("executor", "JSON (Starlette)"),
    "reviewer": AgentProcess("reviewer", "JSON (Starlette)"),
    "linter": AgentProcess("linter", "MCP, streamable HTTP (mcp)"),
    "notifier": AgentProcess("notifier", "WebSocket (websockets)"),
    "mirror": AgentProcess("mirror", "JSON (Starlette)"),
}
"""By the name in ``agents.yaml``."""

PEOPLE = ("user",)

LOGS = "logs"
"""The folder, within the mesh's, of the processes' logs."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A running mesh."""

    folder: Path
    ports: dict[str, int]
    """By agent; ``mesh`` and ``admin`` are the gateway's."""
    processes: Processes

    @property
    def gateway(self) -> str:
        """The mTLS listener's URL."""
        return f"https://127.0.0.1:{self.ports['mesh']}"

    @property
    def admin(self) -> str:
        """The admin port's URL."""
        return f"http://127.0.0.1:{self.ports['admin']}"

    @property
    def agents(self) -> tuple[Agent, ...]:
        """Those that the gateway knows of."""
        path = self.folder / "agents.yaml"
        return load_agents(path.read_text(), str(path))

    def settings(self, identity: str) -> Settings:
        """The settings of a client that is `identity`; it listens nowhere."""
        certs = self.folder / "certs"
        return Settings(
            host="",
            port=0,
            gateway=self.gateway,
            certificate=certs / f"{identity}.pem",
            key=certs / f"{identity}-key.pem",
            trust_bundle=certs / "ca.pem",
        )


@asynccontextmanager
async def running_mesh(folder: Path, on_handoff: Callable[[bytes], None]) -> AsyncIterator[Mesh]:
    """Write everything into `folder`, start the processes, and end them on the way out.

    Args:
        folder: an empty one.
        on_handoff: told each line of the gateway's access log.

    Raises:
        ProcessExitedError: one of them did not stay up.
        TimeoutError: one of them did not get ready.

    """
    ports = _free_ports([*AGENTS, "mesh", "admin"])
    _write_documents(folder, ports)
    svids = {name: f"/ns/agents/sa/{name}" for name in {agent.module for agent in AGENTS.values()}}
    svids |= {name: f"/ns/people/sa/{name}" for name in PEOPLE}
    (folder / "authority.pem").write_bytes(_private_key())
    issue_dev_certificates(folder / "certs", trust_domain=TRUST_DOMAIN, svids=svids, now=datetime.now(UTC))
    async with Processes(folder / LOGS) as processes:
        command = [sys.executable, "-P", "-m", "gateway.cli", "run", "--config", str(folder / "gateway.yaml")]
        await processes.start("gateway", command, {}, on_line=on_handoff)
        mesh = Mesh(folder, ports, processes)
        for name, agent in AGENTS.items():
            own = mesh.settings(agent.module)
            environment = {
                "FLIGHT_LISTEN": f"127.0.0.1:{ports[name]}",
                "FLIGHT_GATEWAY": own.gateway,
                "FLIGHT_CERT": str(own.certificate),
                "FLIGHT_KEY": str(own.key),
                "FLIGHT_CA": str(own.trust_bundle),
            }
            await processes.start(name, [sys.executable, "-P", "-m", f"gateway.demo.{agent.module}"], environment)
        await processes.guard(_ready(mesh))
        yield mesh


def _free_ports(names: list[str]) -> dict[str, int]:
    """A loopback port for each name that nobody has; all are held until all are found, so that they differ."""
    candidates = random.sample(PORTS, len(PORTS))
    ports: dict[str, int] = {}
    with ExitStack() as held:
        for name in names:
            probe = held.enter_context(socket.socket())
            ports[name] = next(port for port in candidates if port not in ports.values() and _bound(probe, port))
    return ports


def _bound(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def _private_key() -> bytes:
    """A throw-away key for handoff credentials."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_documents(folder: Path, ports: dict[str, int]) -> None:
    """Fill in the ports of the documents that come with this package."""
    values = {name.replace("-", "_"): str(port) for name, port in ports.items()}
    source = files("gateway.demo") / "config"
    (folder / "policies").mkdir()
    for policy in (source / "policies").iterdir():
        (folder / "policies" / policy.name).write_text(policy.read_text())
    for name in ("gateway.yaml", "agents.yaml"):
        (folder / name).write_text(Template((source / name).read_text()).substitute(values))


async def _ready(mesh: Mesh) -> None:
    """Wait until every agent accepts connections and the gateway says that it is ready.

    Raises:
        TimeoutError: with what is not there yet.

    """
    awaited = ""
    try:
        async with asyncio.timeout(START_TIMEOUT_S), httpx.AsyncClient(trust_env=False) as client:
            for awaited in AGENTS:
                await _until(partial(_accepts, mesh.ports[awaited]))
            awaited = "gateway"
            await _until(partial(_is_ready, client, f"{mesh.admin}/readyz"))
    except TimeoutError:
        raise TimeoutError(f"{awaited} was not ready within {START_TIMEOUT_S:g} s") from None


async def _until(probe: Callable[[], Awaitable[bool]]) -> None:
    while not await probe():  # noqa: ASYNC110 - another process gives no other sign
        await asyncio.sleep(POLL_INTERVAL_S)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).is_success
    except httpx.TransportError:
        return False
