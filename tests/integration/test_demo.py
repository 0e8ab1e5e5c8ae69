"""The demo, as a newcomer runs it: a2a-sdk, mcp, SSE and WebSocket agents through the gateway over mTLS."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "gateway.cli", "demo"]
PROC = Path("/proc")


@pytest.fixture(scope="module")
def shown() -> str:
    """What the terminal shows of a demo that went well."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("caller", "capability", "agent", "policy", "status", "times"),
    [
        ("user", "agent.plan", "planner", "planning", 200, 4),  # card and message, in two conversations
        ("planner", "notify.progress", "notifier", "progress", 200, 2),
        ("planner", "code.write", "coder", "code-writing", 200, 2),
        ("coder", "code.execute, lang.python", "executor-[12]", "code-execution", 200, 4),
        ("executor", "code.review", "reviewer", "review", 200, 2),
        ("reviewer", "tool.lint", "linter", "tools", 200, 2),
        ("reviewer", "code.execute, lang.python", "-", "code-execution", 403, 2),
        ("reviewer", "code.review", "-", "-", 508, 2),
        ("user", "debug.mirror", "mirror", "debugging", 200, 1),
        ("user", "code.write", "-", "-", 401, 1),
    ],
)
def test_every_handoff_has_its_row(
    shown: str, caller: str, capability: str, agent: str, policy: str, status: int, times: int
) -> None:
    row = rf"^{caller} +{re.escape(capability)} +{agent} +{policy} +{status} +[\d.]+ m?s$"
    assert len(re.findall(row, shown, re.MULTILINE)) >= times


def test_the_refusal_says_which_rule_refused_what_to_whom(shown: str) -> None:
    refusal = next(line for line in shown.splitlines() if "refused: " in line)
    assert "denied-by-policy" in refusal
    assert "spiffe://mesh.local/ns/agents/sa/reviewer" in refusal
    assert "reviewers-never-run-code" in refusal


def test_a_conversation_stays_with_its_executor_and_two_may_differ(shown: str) -> None:
    assert "conversation sum-of-primes: both drafts ran on executor-2" in shown
    assert "conversation fibonacci: both drafts ran on executor-1" in shown


def test_the_person_gets_reviewed_code_and_a_summary(shown: str) -> None:
    assert "printed 1060; review: approved" in shown
    assert "printed 12586269025; review: approved" in shown
    assert re.search(r"^\d+ handoffs, 5 refused, in [\d.]+ s$", shown, re.MULTILINE)
    assert re.search(r"^by agent: coder 2, executor-1 2, executor-2 2, linter \d+, mirror 1, ", shown, re.MULTILINE)


def test_the_work_of_a_goal_is_one_tree_with_what_each_was_allowed_and_spent(shown: str) -> None:
    begun = re.findall(r"^the work that began with [0-9a-f-]{36}, from the flight recorder$", shown, re.MULTILINE)
    assert len(set(begun)) == 2
    for chain, allowed, spent in (
        ("user > planner", "tokens 1200, cost 12", r"tokens \d+"),
        ("user > planner > notifier", "tokens 50, cost 1", "-"),
        ("user > planner > coder", "tokens 1000, cost 10", r"tokens \d\d"),
        ("user > planner > coder > executor-[12]", "tokens 300, cost 3", "cost 1"),
        ("user > planner > coder > executor > reviewer", "tokens 200, cost 2", r"tokens \d\d"),
        ("user > planner > coder > executor > reviewer > linter", "tokens 20, cost 1", "-"),
        ("user > planner > coder > executor > reviewer x denied-by-policy", "-", "-"),
        ("user > planner > coder > executor > reviewer x lineage-loop", "-", "-"),
    ):
        assert len(re.findall(rf"^  {chain} +{allowed} +{spent}$", shown, re.MULTILINE)) >= 2, chain


def test_a_stolen_credential_and_a_loop_are_refused_in_words(shown: str) -> None:
    assert "  refused: credential-invalid: aud: the credential was given to another principal" in shown
    assert shown.count("  refused: lineage-loop: the work has been with every agent that it could go to") == 2
    assert "  - no second opinion. The work would go round in a loop: " in shown


class Demo:
    """A demo in the background."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.shown: list[str] = []

    def read_until(self, pattern: str) -> str:
        """The line of output that has `pattern`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.shown.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"no {pattern!r} in\n{''.join(self.shown)}")

    def children(self) -> dict[int, str]:
        """Command lines of the gateway and the agents, by process id."""
        found = {}
        for stat in PROC.glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                command = (stat.parent / "cmdline").read_text().replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):  # it has ended since
                continue
            if parent == self.process.pid:
                found[int(stat.parent.name)] = command
        return found


@pytest.fixture
def start() -> Iterator[Callable[..., Demo]]:
    if not PROC.is_dir():
        pytest.skip("finds processes by /proc")
    started: list[Demo] = []

    def run(*arguments: str) -> Demo:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(Demo(process))
        return started[-1]

    yield run
    for demo in started:
        demo.process.terminate()
        demo.process.communicate(timeout=20)


def gone(processes: dict[int, str]) -> bool:
    return not any((PROC / str(number)).exists() for number in processes)


def test_stay_leaves_it_running_with_a_curl_line_that_works_until_ctrl_c(start: Callable[..., Demo]) -> None:
    demo = start("--stay")
    demo.read_until("hear the coder write")
    assert demo.process.stdout is not None
    curl = demo.process.stdout.readline()
    heard = subprocess.run(curl, shell=True, capture_output=True, text=True, timeout=30)
    assert '"verdict": "approved"' in heard.stdout, heard
    processes = demo.children()
    assert len(processes) == 9

    demo.process.send_signal(signal.SIGINT)

    assert demo.process.wait(timeout=20) == 0
    eventually(lambda: gone(processes))


def test_ctrl_c_in_the_middle_leaves_no_process_behind(start: Callable[..., Demo]) -> None:
    demo = start()
    demo.read_until("planned: ")
    processes = demo.children()

    demo.process.send_signal(signal.SIGINT)

    assert demo.process.wait(timeout=20) == 130
    eventually(lambda: gone(processes))


def test_an_agent_that_dies_fails_the_demo_which_says_so_and_leaves_no_process_behind(
    start: Callable[..., Demo],
) -> None:
    demo = start()
    demo.read_until("planned: ")
    processes = demo.children()
    linter = next(number for number, command in processes.items() if "gateway.demo.linter" in command)

    os.kill(linter, signal.SIGKILL)

    demo.read_until("the demo failed: linter ended with status -9")
    demo.read_until("--- gateway.log")
    assert demo.process.wait(timeout=20) == 1
    eventually(lambda: gone(processes))


def test_without_its_extra_the_demo_says_how_to_install_it() -> None:
    # None in sys.modules is how Python itself marks a module that cannot be imported.
    script = "import sys; sys.modules['a2a'] = None; from gateway.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "demo"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "pip install 'phoenixflight-gateway[demo]'" in done.stderr
