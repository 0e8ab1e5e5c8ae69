"""docs/quickstart.md is run as it stands, by one shell, in a fresh copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quickstart.md").read_text()
SECONDS = 20.0
"""For a command to print what the page says: what is started, and what is saved, takes its time to be in force."""


def commands(page: str) -> list[tuple[str, str]]:
    """Each command of the page's console blocks, and what it prints."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        end = ""
        for line in block.splitlines():
            command, shown = found.pop() if found and not line.startswith("$ ") else ("", "")
            if line.startswith("$ "):
                found.append((line[2:], ""))
                here = re.search(r"<<'(\w+)'$", line)
                end = here[1] if here else ""
            elif end or command.endswith("\\"):
                found.append((f"{command}\n{line}", shown))
                end = "" if line == end else end
            else:
                found.append((command, f"{shown}{line}\n"))
    return found


def pattern(shown: str) -> re.Pattern[str]:
    """What `shown` matches: `...` is anything, and a line of it alone any number of lines."""
    return re.compile(re.escape(shown).replace(r"\.\.\.", ".*"), re.DOTALL)


class Shell:
    """One bash for all commands, as a reader has it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "-m"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> str:
        """What `command` prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho __end__\n")
        self._process.stdin.flush()
        lines = iter(self._process.stdout.readline, "")
        printed = ""
        for line in lines:
            if line.endswith("__end__\n"):
                return printed + line.removesuffix("__end__\n")
            printed += line
        raise AssertionError(f"the shell has ended: {printed}")

    def close(self) -> None:
        """End the shell and all that it has started."""
        assert self._process.stdin is not None
        self._process.stdin.write("kill -TERM $(jobs -p) 2>/dev/null; wait\nexit\n")
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A copy of what is under version control, in which `make install` finds that all is there."""
    folder = tmp_path / "clone"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    for stamp in (".pip", ".demo", ".dev"):
        (folder / ".venv" / stamp).touch()
    return folder


@pytest.fixture
def shell(fresh: Path) -> Iterator[Shell]:
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    running = Shell(fresh, {**inherited, "PYTHONPATH": str(fresh), "COLUMNS": "120"})
    yield running
    running.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl: see tools/test-deps")
def test_each_command_of_the_quick_start_prints_what_it_says(shell: Shell) -> None:
    ports = {port: str(free_port()) for port in sorted(set(re.findall(r"127\.0\.0\.1\D{1,4}(\d{4})", PAGE)))}
    page = re.sub("|".join(ports), lambda match: ports[match[0]], PAGE)
    found = commands(page)
    assert len(found) > 15
    for command, shown in found:
        deadline = time.monotonic() + SECONDS
        while True:
            printed = shell.run(command)
            if pattern(shown.strip()).fullmatch(_without_the_shells_own(printed)):
                break
            assert time.monotonic() < deadline, f"{command}\nprinted\n{printed}\nand not\n{shown}"
            time.sleep(0.1)


def _without_the_shells_own(printed: str) -> str:
    """What the commands printed: without the words of make, and of the shell about its jobs."""
    return "\n".join(line for line in printed.splitlines() if not re.match(r"\[\d+\]|make", line)).strip()
