"""The mesh of the examples, with their own documents, on free ports."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from gateway.control.certs_dev import issue_dev_certificates
from tests.conftest import RunningGateway
from tests.waiting import eventually, free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
SVIDS = {name: f"/ns/agents/sa/{name}" for name in ("caller", "counter", "reporter", "stranger")}


class Mesh:
    """A gateway over the agents of the examples, those that a test starts."""

    def __init__(self, folder: Path, certs: Path) -> None:
        """Start the gateway in `folder`, with `certs`."""
        self.certs = certs
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        mesh = folder / "examples" / "mesh"
        shutil.copytree(EXAMPLES / "mesh", mesh)
        (folder / "certs").symlink_to(certs)
        ports: dict[str, str] = {}
        for document in (mesh / "gateway.yaml", mesh / "agents.yaml"):
            text = re.sub(
                r"127\.0\.0\.1:(\d+)",
                lambda match: f"127.0.0.1:{ports.setdefault(match[1], str(free_port()))}",
                document.read_text(),
            )
            document.write_text(text.replace("accessLog: stdout", "accessLog: access.log"))
        (mesh / "access.log").touch()
        self._addresses = {
            agent["name"]: agent["address"]
            for agent in yaml.safe_load((mesh / "agents.yaml").read_text())["spec"]["agents"]
        }
        listeners = yaml.safe_load((mesh / "gateway.yaml").read_text())["spec"]
        tls_port, plain_port = (int(each["address"].split(":")[1]) for each in listeners["listeners"])
        admin_port = int(listeners["admin"]["address"].split(":")[1])
        self.gateway = RunningGateway(None, mesh, certs, tls_port, plain_port, admin_port)  # type: ignore[arg-type]
        self.gateway.spawn()
        eventually(self.gateway.ready, 40)

    def _environment(self, **more: str) -> dict[str, str]:
        """The environment of this process without its proxies, with the gateway's address."""
        inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return {**inherited, "FLIGHT_GATEWAY": self.gateway.url, "PYTHONWARNINGS": "error::ResourceWarning", **more}

    def address(self, agent: str) -> str:
        """Where an agent of agents.yaml listens."""
        return self._addresses[agent]

    def start(self, agent: str, *command: str, **environment: str) -> None:
        """Start an agent of agents.yaml, and wait until it listens."""
        address = self._addresses[agent]
        host, port = address.split(":")
        command = tuple(each.replace("PORT", port) for each in command)
        with (self._folder / f"{agent}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environment(FLIGHT_LISTEN=address, **environment),
                stdout=log,
                stderr=log,
            )
        self._running.append(process)

        def listens() -> bool:
            assert process.poll() is None, (self._folder / f"{agent}.log").read_text()
            with suppress(OSError), socket.create_connection((host, int(port)), 1):
                return True
            return False

        eventually(listens, 40)

    def ask(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a caller to its end."""
        return subprocess.run(
            command, cwd=self._folder, env=self._environment(**environment), capture_output=True, text=True, timeout=60
        )

    def as_stranger(self) -> dict[str, str]:
        """The environment of somebody whom no policy allows anything."""
        return {"FLIGHT_CERT": "certs/stranger.pem", "FLIGHT_KEY": "certs/stranger-key.pem"}

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(20)
        self.gateway.stop()


@pytest.fixture(scope="session")
def example_certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `phoenixflight certs dev` makes for the examples."""
    folder = tmp_path_factory.mktemp("example-certs")
    issue_dev_certificates(folder, trust_domain="mesh.local", svids=SVIDS, now=datetime.now(UTC))
    return folder


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, example_certs: Path) -> Iterator[Mesh]:
    """One mesh for the tests of a module."""
    running = Mesh(tmp_path_factory.mktemp("mesh"), example_certs)
    yield running
    running.stop()


PYTHON = sys.executable


def example(path: str) -> str:
    """The file of an example."""
    return str(EXAMPLES / path)


def needs(tool: str) -> str:
    """Where `tool` is; the test is skipped without it."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"no {tool}: see tools/test-deps")
    return found
