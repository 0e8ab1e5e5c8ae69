"""Real things for tests: certificates, agents on real sockets, and a gateway in a process of its own."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.control.certs_dev import issue_dev_certificates
from tests.fork_server import Forked, ForkServer
from tests.redis_server import RedisServer
from tests.waiting import eventually, free_port

TRUST_DOMAIN = "mesh.local"
SVIDS = {
    "planner": "/ns/agents/sa/planner",
    "coder": "/ns/agents/sa/coder",
    "executor": "/ns/agents/sa/executor",
    "mallory": "/ns/quarantine/sa/mallory",
}
POLICY = {
    "apiVersion": "phoenixflight.io/v1",
    "kind": "TrustPolicy",
    "metadata": {"name": "test"},
    "spec": {
        "capabilities": ["*"],
        "rules": [
            {"name": "agents", "effect": "allow", "from": ["spiffe://mesh.local/ns/agents/**"]},
            {"name": "quarantined", "effect": "deny", "from": ["spiffe://mesh.local/ns/quarantine/**"]},
        ],
    },
}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of tests are objects that stay: a collection that looks at them again holds up who measures a time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Nothing of ours is left over."""
    for server in _fork_servers.values():
        server.close()


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A development CA, the gateway's SVID and some agents'."""
    folder = tmp_path_factory.mktemp("certs")
    issue_dev_certificates(folder, trust_domain=TRUST_DOMAIN, svids=SVIDS, now=datetime.now(UTC))
    return folder


def client_context(certs: Path, name: str | None = "planner", *, alpn: list[str] | None = None) -> ssl.SSLContext:
    """A caller's TLS context; `name` is whose SVID it shows, ``None`` shows none."""
    context = ssl.create_default_context(cafile=certs / "ca.pem")
    if name is not None:
        context.load_cert_chain(certs / f"{name}.pem", certs / f"{name}-key.pem")
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


@dataclass
class RunningGateway:
    """A gateway process, where it listens and what it wrote."""

    process: Forked | subprocess.Popen[bytes]
    folder: Path
    certs: Path
    tls_port: int
    plain_port: int
    admin_port: int
    admin_scheme: str = "http"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def plain_url(self) -> str:
        return f"http://127.0.0.1:{self.plain_port}"

    def admin(self, path: str) -> httpx.Response:
        url = f"{self.admin_scheme}://127.0.0.1:{self.admin_port}{path}"
        return httpx.get(url, timeout=5, verify=client_context(self.certs, None))

    def client(self, name: str | None = "planner", *, http2: bool = False) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, verify=client_context(self.certs, name), http2=http2, timeout=10, trust_env=False
        )

    def handoffs(self) -> list[dict[str, Any]]:
        text = (self.folder / "access.log").read_text()
        whole = text[: text.rfind("\n") + 1]  # the last line may be on its way
        return [json.loads(line) for line in whole.splitlines()]

    def handoff(self, **wanted: Any) -> dict[str, Any]:
        """The logged handoff with these values, waited for."""

        def look() -> dict[str, Any] | None:
            found = [each for each in self.handoffs() if wanted.items() <= each.items()]
            return found[-1] if found else None

        return eventually(look)

    def log(self) -> str:
        return (self.folder / "stderr.log").read_text()

    def revision(self) -> str:
        return str(self.admin("/status").json()["revision"])

    def rss_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def start_again(self) -> None:
        """Start it once more, after it has ended, with the same files and ports."""
        self.spawn()
        eventually(self.ready, 40)

    def spawn(self) -> None:
        """Start another process, which is this gateway's from now on."""
        self.process = _spawn(self.folder)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            return self.admin("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def write_agents(folder: Path, agents: list[dict[str, Any]]) -> None:
    """Replace a gateway's agents.yaml."""
    document = {
        "apiVersion": "phoenixflight.io/v1",
        "kind": "AgentList",
        "metadata": {"name": "test"},
        "spec": {"agents": agents},
    }
    _replace(folder / "agents.yaml", yaml.safe_dump(document))


def write_policy(folder: Path, name: str, document: dict[str, Any] | str) -> None:
    """Replace one of a gateway's policy files."""
    text = document if isinstance(document, str) else yaml.safe_dump(document)
    _replace(folder / "policies" / f"{name}.yaml", text)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    os.replace(fresh, path)


class ConfigMap:
    """A mounted ConfigMap, replaced as the kubelet does it: one atomic rename, and the names in the mount after it."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir()
        self.swap(files)

    def swap(self, files: dict[str, str]) -> None:
        """Put `files` (name to text) in the place of all that there is."""
        self._version += 1
        link = self.folder / "..data"
        before = link.resolve() if link.is_symlink() else None
        version = self.folder / f"..2026_11_24_{self._version:04}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        os.replace(fresh, link)
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for name in self.folder.iterdir():
            if not name.name.startswith("..") and name.name not in files:
                name.unlink()
        if before is not None:
            shutil.rmtree(before)


StartGateway = Callable[..., RunningGateway]


_fork_servers: dict[str, ForkServer] = {}
"""By the network that they are in."""


def _spawn(folder: Path) -> Forked:
    network = os.readlink("/proc/thread-self/ns/net")
    if network not in _fork_servers:
        _fork_servers[network] = ForkServer()
    return _fork_servers[network].start(["run", "--config", str(folder / "gateway.yaml")], folder / "stderr.log")


def launch(
    folder: Path,
    certs: Path,
    agents: list[dict[str, Any]],
    *,
    policy: dict[str, Any] = POLICY,
    admin_spec: dict[str, Any] | None = None,
    **spec: Any,
) -> RunningGateway:
    """Start ``phoenixflight run`` over `agents`; `spec` adds to the Gateway document, `admin_spec` to its `admin`."""
    ports = [free_port() for _ in range(3)]
    document = {
        "apiVersion": "phoenixflight.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "test"},
        "spec": {
            "identity": {
                "certificate": str(certs / "gateway.pem"),
                "key": str(certs / "gateway-key.pem"),
                "trustBundle": str(certs / "ca.pem"),
            },
            "connectAuthority": {
                "certificate": str(certs / "connect-ca.pem"),
                "key": str(certs / "connect-ca-key.pem"),
            },
            "listeners": [
                {"name": "mesh", "address": f"127.0.0.1:{ports[0]}"},
                {
                    "name": "local",
                    "address": f"127.0.0.1:{ports[1]}",
                    "tls": False,
                    "assumedPrincipal": "spiffe://mesh.local/ns/agents/sa/local",
                },
            ],
            "admin": {"address": f"127.0.0.1:{ports[2]}", **(admin_spec or {})},
            "policies": "policies",
            "members": "agents.yaml",
            "telemetry": {"accessLog": "access.log"},
            **spec,
        },
    }
    (folder / "policies").mkdir()
    (folder / "access.log").touch()
    (folder / "gateway.yaml").write_text(yaml.safe_dump(document))
    write_agents(folder, agents)
    write_policy(folder, "test", policy)
    process = _spawn(folder)
    running = RunningGateway(process, folder, certs, *ports, "https" if (admin_spec or {}).get("tls") else "http")
    try:
        eventually(running.ready, 40)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return running


@pytest.fixture
def start_gateway(tmp_path: Path, certs: Path) -> Iterator[StartGateway]:
    """Starts gateways of this test's own, and stops them."""
    started: list[RunningGateway] = []

    def start(agents: list[dict[str, Any]], **spec: Any) -> RunningGateway:
        folder = tmp_path / f"gateway-{len(started)}"
        folder.mkdir()
        started.append(launch(folder, certs, agents, **spec))
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()


class RawAgent:
    """An agent on a real socket that records what arrives and answers from a script.

    Each connection is given to `serve`, a plain blocking function, in a thread of its own.
    """

    def __init__(self, serve: Callable[[RawAgent, socket.socket], None]) -> None:
        self.received: list[bytes] = []
        self.connections = 0
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._serve(self, connection)
            except OSError:
                return  # the gateway closed it: tests look at what was recorded

    def read_head(self, connection: socket.socket) -> bytes:
        """Record and give bytes up to the end of a head (and what came with it)."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                raise OSError("closed")
            data += piece
        self.received.append(data)
        return data

    def close(self) -> None:
        self._socket.close()


def member(port: int, name: str = "executor-1", **more: Any) -> dict[str, Any]:
    """An entry of agents.yaml."""
    return {"name": name, "address": f"127.0.0.1:{port}", "capabilities": ["code.execute"], **more}


@pytest.fixture
def raw_agent() -> Iterator[Callable[[Callable[[RawAgent, socket.socket], None]], RawAgent]]:
    """Makes scripted agents, and closes them."""
    made: list[RawAgent] = []

    def make(serve: Callable[[RawAgent, socket.socket], None]) -> RawAgent:
        made.append(RawAgent(serve))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path)
    yield server
    server.stop()


CAPABILITY = {"flight-capability": "code.execute"}
