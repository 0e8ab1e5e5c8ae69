"""What the demo's person asks, which handoffs must come of it, and whether they did."""

from __future__ import annotations

import asyncio
import json
import secrets
import shlex
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
from rich.console import Console

from gateway.demo.mesh import AGENTS, LOGS, Mesh, running_mesh
from gateway.demo.peer import gateway_client
from gateway.demo.processes import ProcessExitedError, log_tails
from gateway.demo.report import Report, short
from gateway.demo.user import CAPABILITY, TaskFailedError, ask
from gateway.handoff import Handoff, Outcome

GOALS = {
    "sum-of-primes": "Sum the primes below 100",
    "fibonacci": "Find the 50th Fibonacci number",
}
"""By conversation; the ring puts the two on different executors."""

RUN = "code.execute, lang.python"

Expected = tuple[str, str, Outcome]
"""From whom, for what, how it ended."""

EXPECTED: Counter[Expected] = Counter(
    {
        ("user", CAPABILITY, Outcome.COMPLETED): 2,  # the agent card, then the message
        ("planner", "notify.progress", Outcome.COMPLETED): 1,
        ("planner", "code.write", Outcome.COMPLETED): 1,
        ("coder", RUN, Outcome.COMPLETED): 2,  # the first draft fails its test
        ("executor", "code.review", Outcome.COMPLETED): 1,
        ("reviewer", "tool.lint", Outcome.COMPLETED): 1,  # at least: MCP negotiates first
        ("reviewer", RUN, Outcome.REFUSED): 1,
        ("reviewer", "code.review", Outcome.REFUSED): 1,
    }
)
"""At least how often in each conversation."""

THEFT: Counter[Expected] = Counter(
    {
        ("user", "debug.mirror", Outcome.COMPLETED): 1,
        ("user", "code.write", Outcome.REFUSED): 1,
    }
)
"""Of the conversation in which a credential is stolen."""

CHAIN = ("user", "planner", "coder", "executor", "reviewer")
"""Whom the work of the innermost handoff has passed through."""

LOG_TIMEOUT_S = 5.0
"""How long a handoff's line may take to reach the access log."""


class ScenarioFailedError(Exception):
    """The demo did not go as it must; the message says how."""


class Handoffs:
    """The access log, as it is written."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._seen: list[Handoff] = []
        self._arrived = asyncio.Event()

    def take(self, line: bytes) -> None:
        """Show and keep the handoff in a line of the log."""
        handoff = msgspec.json.decode(line, type=Handoff)
        self._report.row(handoff)
        self._seen.append(handoff)
        self._arrived.set()

    def all(self) -> tuple[Handoff, ...]:
        """Those seen so far."""
        return tuple(self._seen)

    def of(self, conversation: str) -> tuple[Handoff, ...]:
        """Those of one conversation."""
        return tuple(handoff for handoff in self._seen if handoff.conversation == conversation)

    async def expect(self, conversation: str, expected: Counter[Expected]) -> None:
        """Wait until `conversation` has everything that is `expected`.

        Raises:
            ScenarioFailedError: with what is missing.

        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LOG_TIMEOUT_S):
                while self._missing(conversation, expected):
                    self._arrived.clear()
                    await self._arrived.wait()
        missing = self._missing(conversation, expected)
        if missing:
            rows = "; ".join(f"{caller} -> {what}, {how.value}" for caller, what, how in missing.elements())
            raise ScenarioFailedError(f"conversation {conversation}: no handoff {rows}")

    def one_executor(self, conversation: str) -> None:
        """Show which executor `conversation` stayed with.

        Raises:
            ScenarioFailedError: it was spread over several.

        """
        runs = {each.agent for each in self.of(conversation) if each.capability == RUN and each.agent}
        if len(runs) != 1:
            raise ScenarioFailedError(f"conversation {conversation} was spread over {', '.join(sorted(runs))}")
        self._report.say(f"conversation {conversation}: both drafts ran on {runs.pop()}", "dim")

    def _missing(self, conversation: str, expected: Counter[Expected]) -> Counter[Expected]:
        return expected - Counter((short(each.caller), each.capability, each.outcome) for each in self.of(conversation))


async def play(console: Console, *, stay: bool) -> None:
    """Start the mesh, ask the goals, show what happens; on SIGINT, SIGTERM and SIGHUP be cancelled.

    Args:
        console: where to.
        stay: leave it all running afterwards, until cancelled.

    Raises:
        ScenarioFailedError: something did not go as it must; with the ends of the processes' logs.

    """
    playing = asyncio.current_task()
    assert playing is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, playing.cancel)
    report = Report(console)
    handoffs = Handoffs(report)
    report.say("starting the gateway and its agents ...", "dim")
    with tempfile.TemporaryDirectory(prefix="phoenixflight-demo-") as name:
        folder = Path(name)
        try:
            async with running_mesh(folder, handoffs.take) as mesh:
                await mesh.processes.guard(_perform(mesh, handoffs, report, stay=stay))
        except (ScenarioFailedError, TaskFailedError, ProcessExitedError, TimeoutError) as error:
            raise ScenarioFailedError(f"{error}\n{log_tails(folder / LOGS)}") from error


async def _perform(mesh: Mesh, handoffs: Handoffs, report: Report, *, stay: bool) -> None:
    started = time.monotonic()
    report.agents(mesh.agents, {name: agent.speaks for name, agent in AGENTS.items()})
    for conversation, goal in GOALS.items():
        report.say(f'\nuser, in conversation "{conversation}": {goal}', "bold cyan")
        report.header()
        packet = {
            "flight-conversation": f'"{conversation}"',
            "flight-task": f'"{conversation}-1"',
            "flight-budget": "tokens=1200, cost=12",
            # W3C Trace Context: a trace of our own, sampled; the gateway and the agents carry it on.
            "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
        }
        answer = await ask(goal, packet, mesh.settings("user"), lambda text: report.say(f"  {text}", "dim"))
        await handoffs.expect(conversation, EXPECTED)
        handoffs.one_executor(conversation)
        await _trace(conversation, mesh, report)
        report.answer(answer)
        if answer.verdict != "approved":
            raise ScenarioFailedError(f"the review of {conversation} ended with {answer.verdict!r}")
    await _steal(mesh, handoffs, report)
    report.summary(handoffs.all(), time.monotonic() - started)
    if stay:
        _invite(mesh, report)
        await asyncio.Event().wait()


async def _trace(conversation: str, mesh: Mesh, report: Report) -> None:
    """Show what the flight recorder has of `conversation`, which must be one piece of work, handed on and on.

    Raises:
        ScenarioFailedError: it is not.

    """
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{mesh.admin}/conversations/{conversation}")
    answer.raise_for_status()
    found = answer.json()
    (work,) = [each for each in found["handoffs"] if each["children"]]  # the other one has fetched the agent card
    below = list(_all(work))
    roots = {each["root"] for each in below}
    chains = {tuple(short(one) for one in each["lineage"]) for each in below}
    if found["source"] != "recorder" or roots != {work["flight_id"]} or CHAIN not in chains:
        raise ScenarioFailedError(f"conversation {conversation} is not one piece of work: {roots}, {chains}")
    report.say(f"the work that began with {work['flight_id']}, from the flight recorder", "bold")
    report.say("  WHOM IT HAS PASSED THROUGH".ljust(66) + "ALLOWED".ljust(22) + "SPENT", "bold")
    report.tree([work])


def _all(handoff: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield handoff
    for child in handoff["children"]:
        yield from _all(child)


async def _steal(mesh: Mesh, handoffs: Handoffs, report: Report) -> None:
    """Have an agent tell the credential that it was given, and show that with a certificate of another's.

    Raises:
        ScenarioFailedError: it was of use.

    """
    report.say("user, who learns the credential of another, and asks for what that may ask for", "bold cyan")
    report.header()
    conversation = {"flight-conversation": '"theft"'}
    async with gateway_client(mesh.settings("user")) as gateway:
        told = await gateway.get("/", headers={"flight-capability": "debug.mirror", **conversation})
        stolen = {"flight-credential": told.json()["flight-credential"]}
        used = await gateway.post("/write", headers={"flight-capability": "code.write", **conversation, **stolen})
    if (used.status_code, used.json()["type"]) != (401, "urn:phoenixflight:credential-invalid"):
        raise ScenarioFailedError(f"a stolen credential was answered with {used.status_code}: {used.text}")
    await handoffs.expect("theft", THEFT)
    report.say("")


def _invite(mesh: Mesh, report: Report) -> None:
    """Say where everything is, and what to try."""
    planner = mesh.settings("planner")
    curl = shlex.join(
        [
            *("curl", "--silent", "--no-buffer", "--http2", "--cacert", str(planner.trust_bundle)),
            *("--cert", str(planner.certificate), "--key", str(planner.key)),
            *("-H", "flight-capability: code.write", "-H", 'flight-conversation: "mine"'),
            *("-d", json.dumps({"goal": GOALS["sum-of-primes"], "test": "assert answer == 1060"})),
            f"{mesh.gateway}/write",
        ]
    )
    report.say(f"\nstill running, until Ctrl-C\n  gateway   {mesh.gateway} (mTLS)")
    report.say(f"  admin     {mesh.admin}/status, /snapshot, /metrics")
    report.say(f"  files     {mesh.folder} (change a policy: it is in force at once)")
    report.say(f"  as the planner, hear the coder write:\n    {curl}\n")
