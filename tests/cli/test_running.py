"""``status``, ``top`` and ``explain ID`` ask a gateway that runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gateway.admin.events import State
from gateway.admin.members import Member
from gateway.cli import app
from gateway.cli.frame import MAX_REFUSALS, MAX_ROWS, Frame
from gateway.handoff import Handoff, Outcome
from tests.admin.operators import TOKEN, ok, operator, order, packet, with_token
from tests.conftest import RawAgent, RunningGateway, launch, member, write_policy
from tests.waiting import eventually, free_port

run = CliRunner().invoke
TIME = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def running(certs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("asked")
    agent = RawAgent(ok)
    spec = {"tls": True, "allow": ["spiffe://mesh.local/ns/agents/sa/coder"], **with_token(folder)}
    gateway = launch(folder, certs, [member(agent.port), member(agent.port, "executor-2")], admin_spec=spec)
    with gateway.client() as client:
        assert client.post("/run", headers=packet("well", conversation="c")).status_code == 200
    with gateway.client("mallory") as client:
        assert client.post("/run", headers=packet("ill")).status_code == 403
    yield gateway
    gateway.stop()
    agent.close()


def asking(gateway: RunningGateway, *command: str) -> list[str]:
    """A command that asks `gateway`, with the token."""
    url = f"https://127.0.0.1:{gateway.admin_port}"
    return [*command, "--admin", url, "--cacert", str(gateway.certs / "ca.pem"), "--token-file", str(token(gateway))]


def token(gateway: RunningGateway) -> Path:
    return gateway.folder / "admin-token"


def ask(gateway: RunningGateway, *command: str) -> tuple[int, str]:
    result = run(app, asking(gateway, *command))
    return result.exit_code, result.output


def test_status_tells_in_short_that_a_gateway_is_ready(running: RunningGateway) -> None:
    code, output = ask(running, "status")
    assert code == 0, output
    lines = output.splitlines()
    assert lines[0] == "ready"
    assert ", revision " in lines[1]
    assert "members: 2 ready" in lines
    assert "in flight: 0" in lines


def test_a_certificate_is_as_good_as_the_token(running: RunningGateway) -> None:
    certs = running.certs
    arguments = ["status", "--admin", f"https://127.0.0.1:{running.admin_port}", "--cacert", str(certs / "ca.pem")]
    shown = ["--cert", str(certs / "coder.pem"), "--key", str(certs / "coder-key.pem")]
    assert run(app, [*arguments, *shown]).exit_code == 0
    refused = run(app, arguments)
    assert refused.exit_code == 1
    assert "401: this takes a client certificate or a token" in refused.output
    assert run(app, [*arguments, *shown[:2]]).exit_code == 2


def test_status_tells_what_is_not_as_it_should_be(raw_agent, tmp_path: Path, certs: Path) -> None:
    agent = raw_agent(ok)
    gateway = launch(tmp_path, certs, [member(agent.port)], admin_spec=with_token(tmp_path))
    arguments = ["status", "--admin", f"http://127.0.0.1:{gateway.admin_port}", "--token-file", str(token(gateway))]
    with operator(gateway) as admin:
        order(admin, "members/executor-1/drain")
        write_policy(gateway.folder, "broken", "nonsense")
        eventually(lambda: admin.get("/status").json()["last_refused"])
    output = run(app, arguments).output
    assert "executor-1: draining: drained by token from 127.0.0.1 at 20" in output
    assert "the files are not in force: refused at 20" in output
    assert "broken.yaml:1:1" in output
    gateway.stop()
    silent = run(app, arguments)
    assert (silent.exit_code, f"http://127.0.0.1:{gateway.admin_port}: " in silent.output) == (1, True)


@pytest.mark.parametrize("command", [["status"], ["top", "--once"], ["explain", "some-id"]])
def test_a_mistake_ends_a_command_with_2_and_silence_with_1(tmp_path: Path, command: list[str]) -> None:
    nobody = ["--admin", f"http://127.0.0.1:{free_port()}"]
    assert run(app, [*command, *nobody]).exit_code == 1
    assert run(app, [*command, *nobody, "--token-file", str(tmp_path / "none")]).exit_code == 2
    assert run(app, [*command, "--admin", "http://[::"]).exit_code == 2


def test_explain_tells_of_a_packet_that_the_gateway_had(running: RunningGateway) -> None:
    code, output = ask(running, "explain", "well")
    assert code == 0, output
    assert "well of spiffe://mesh.local/ns/agents/sa/planner" in output
    assert "code.execute: allowed, to executor-" in output
    assert "under what is in force now:" in output
    assert "test/agents: allows" in output
    code, output = ask(running, "explain", "ill")
    assert code == 3
    assert "code.execute: refused: denied-by-policy (policy test, rule quarantined), under revision" in output
    code, output = ask(running, "explain", "never-seen")
    assert (code, "404: no packet with this id" in output) == (1, True)


def test_explain_takes_an_id_or_a_description(running: RunningGateway) -> None:
    for arguments in ([], ["some-id", "--from", "spiffe://mesh.local/x"]):
        result = run(app, ["explain", *arguments])
        assert (result.exit_code, "say which packet" in result.output) == (2, True)


def test_top_prints_one_frame_for_scripts(running: RunningGateway) -> None:
    code, output = ask(running, "top", "--once")
    assert code == 0, output
    assert "  ready  revision " in output
    assert "in flight 0   connections " in output
    for part in ("executor-1", "executor-2", "code.execute", "denied-by-policy", "spiffe://mesh.local/ns/quarantine"):
        assert part in output, output
    assert TOKEN not in output


def test_top_follows_a_gateway_until_it_is_interrupted(running: RunningGateway) -> None:
    terminal, other = os.openpty()
    os.set_blocking(terminal, False)
    command = [sys.executable, "-m", "gateway.cli", *asking(running, "top")]
    process = subprocess.Popen(
        command,
        stdout=other,
        env={**os.environ, "COLUMNS": "200", "TERM": "xterm"},
        # A suite that was started in the background has it ignored, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    text = b""

    def seen() -> bool:
        nonlocal text
        with contextlib.suppress(BlockingIOError):
            text += os.read(terminal, 65536)
        return text.count(b"executor-1") > 2

    try:
        eventually(seen, 30)
        process.send_signal(signal.SIGINT)
        # A terminal that nobody reads holds up who writes to it.
        eventually(lambda: (seen(), process.poll())[1] is not None)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(other)


def shown(frame: Frame) -> str:
    console = Console(width=160, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(frame.render())
    return console.export_text()


def handoff(at: float, outcome: Outcome = Outcome.COMPLETED, took_ms: float = 0.0, agent: str = "a0") -> Handoff:
    return Handoff(
        TIME + timedelta(seconds=at), outcome, f"p{at}", capability="code.execute", agent=agent, duration_ms=took_ms,
        reason="denied-by-policy" if outcome is Outcome.REFUSED else "", detail=f"detail {at:g}",
    )  # fmt: skip


def state(at: float, dropped: int = 0) -> State:
    return State(TIME + timedelta(seconds=at), True, "r1", 3, 2, 12.5, 1.0, 0.5, 0.25, 1, dropped=dropped)


def a_member(number: int) -> Member:
    return Member(f"a{number}", "h:1", "h2", None, ["x"], "ready", "", 1.0, 1.0, 1.0, "", 0, 0.1, "file")


def test_a_frame_is_of_the_last_minute() -> None:
    frame = Frame("http://gateway")
    assert "nothing heard yet" in shown(frame)
    frame.members = [a_member(0)]
    for number in range(100):
        frame.add(handoff(number / 100, took_ms=number + 1))
    frame.add(handoff(1, Outcome.FAILED))
    frame.state = state(2, dropped=7)
    text = shown(frame)
    assert "in flight 3   connections 2   handoffs/s 12.5   refused/s 1   failed/s 0.5" in text
    assert "7 handoffs came too fast to be shown" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("a0 ")]
    assert row[:8] == ["a0", "ready", "0", "10.0%", "101", "1", "50.0", "99.0"]
    (row,) = [line.split() for line in text.splitlines() if line.startswith("code.execute ")]
    assert row == ["code.execute", "101", "0", "1", "50.5", "99.0"]
    frame.state = state(61.5)
    (row,) = [line.split() for line in shown(frame).splitlines() if line.startswith("a0 ")]
    assert row[4] == "0"


def test_a_frame_has_so_many_rows_whatever_there_is() -> None:
    frame = Frame("http://gateway")
    frame.members = [a_member(number) for number in range(MAX_ROWS + 5)]
    frame.state = state(1)
    for number in range(100):
        frame.add(handoff(number / 1000, Outcome.REFUSED))
    text = shown(frame)
    assert "and 5 more" in text
    assert text.count("denied-by-policy") == MAX_REFUSALS
    assert "detail 0.099" in text
