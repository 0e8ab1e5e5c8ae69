"""``phoenixflight health``: what probes run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.conftest import RunningGateway, StartGateway, eventually
from tests.waiting import free_port

ROOT = Path(__file__).parents[2]
LOADED = "import sys; sys.argv[1:] = {!r}; from gateway.start import main\ntry: main()\nfinally: print(*sys.modules)"


def health(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gateway.start import main; main()", "health", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def admin(gateway: RunningGateway) -> str:
    return f"{gateway.admin_scheme}://127.0.0.1:{gateway.admin_port}"


@pytest.mark.parametrize("spec", [{}, {"admin_spec": {"tls": True, "allow": ["spiffe://mesh.local/ns/agents/**"]}}])
def test_it_tells_whether_a_gateway_is_ready_and_whether_it_runs(
    start_gateway: StartGateway, spec: dict[str, object]
) -> None:
    gateway = start_gateway([], limits={"drainDelay": "60s"}, **spec)
    ready = health("--admin", admin(gateway))
    assert (ready.returncode, ready.stdout) == (0, "ready\n")
    gateway.process.terminate()
    eventually(lambda: health("--admin", admin(gateway)).returncode == 1)
    leaving = health("--admin", admin(gateway))
    assert (leaving.returncode, leaving.stderr) == (1, "not ready: starting or draining\n")
    assert health("--live", "--admin", admin(gateway)).returncode == 0
    gateway.process.terminate()
    gateway.process.wait(20)
    gone = health("--live", "--admin", admin(gateway))
    assert gone.returncode == 1
    assert "Connection refused" in gone.stderr


@pytest.mark.parametrize("arguments", [["--admin", "127.0.0.1:9901"], ["--admin", "http://x:y"], ["--ready"]])
def test_what_it_cannot_understand_exits_2(arguments: list[str]) -> None:
    assert health(*arguments).returncode == 2


def test_it_loads_nothing_of_the_gateway() -> None:
    program = LOADED.format(["health", "--admin", f"http://127.0.0.1:{free_port()}"])
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    loaded = set(told.stdout.split())
    assert {"gateway.probe", "gateway.start"} <= loaded
    assert not loaded & {"typer", "pydantic", "asyncio", "gateway.cli"}


def test_it_is_a_command_like_the_others() -> None:
    result = CliRunner().invoke(app, ["health", "--admin", f"http://127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
