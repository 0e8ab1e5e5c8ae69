"""``phoenixflight ring``: what a person learns of who has which keys."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.routing import Agent, Ring

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / "config" / "agents.yaml"
run = CliRunner().invoke


@pytest.fixture
def without_executor_2(tmp_path: Path) -> Path:
    """The agents that ship, less one."""
    text = AGENTS.read_text()
    start = text.index("    - name: executor-2")
    path = tmp_path / "after.yaml"
    path.write_text(text[:start] + text[text.index("    - name: reviewer") :])
    return path


def test_show_tells_the_agents_that_offer_all_of_it_and_their_keys() -> None:
    result = run(app, ["ring", "show", str(AGENTS), "--capability", "code.execute,lang.python"])
    assert result.exit_code == 0, result.output
    assert "executor-1" in result.output
    assert "reviewer" not in result.output
    assert "2 agents, 1844 points; at most 1.0" in result.output


def test_show_tells_who_has_a_conversation_and_who_comes_next() -> None:
    result = run(app, ["ring", "show", str(AGENTS), "--capability", "code.execute", "--key", "c-17"])
    members = [Agent(f"executor-{number}", "127.0.0.1", 80, frozenset(), 0.9) for number in (1, 2)]
    owner, other = (agent.name for agent in Ring(members).walk(b"c-17"))
    assert f"c-17: {owner}; then {other}\n" in result.output


def test_show_reads_the_members_of_a_configuration() -> None:
    result = run(app, ["ring", "show", "--config", str(ROOT / "config" / "gateway.yaml")])
    assert result.exit_code == 0, result.output
    assert "3 agents, " in result.output


def test_show_tells_who_offers_it_and_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "agents.yaml"
    path.write_text(
        AGENTS.read_text().replace("    - name: executor-2\n", "    - name: executor-2\n      state: draining\n")
    )
    result = run(app, ["ring", "show", str(path), "--capability", "code.execute"])
    assert "not on it: executor-2 (draining)" in result.output


def test_show_exits_1_when_nobody_is_on_the_ring() -> None:
    result = run(app, ["ring", "show", str(AGENTS), "--capability", "code.exceute"])
    assert result.exit_code == 1
    assert result.output == "no agent is ready that offers code.exceute\n"


def test_plan_tells_what_would_move_for_each_set_of_capabilities(without_executor_2: Path) -> None:
    result = run(app, ["ring", "plan", str(AGENTS), str(without_executor_2)])
    assert result.exit_code == 0, result.output
    assert "2 → 1" in result.output
    assert "code.execute: executor-2 → executor-1 " in result.output
    assert result.output.count("lang.python") == 2  # alone, and with code.execute: the same agents, told once


def test_plan_as_json_tells_every_move(without_executor_2: Path) -> None:
    result = run(app, ["ring", "plan", str(AGENTS), str(without_executor_2), "--json", "--capability", "code.execute"])
    assert result.exit_code == 0, result.output
    [told] = json.loads(result.output)
    assert told["capabilities"] == ["code.execute"]
    assert told["agents"] == {"before": 2, "after": 1}
    assert told["left"] == ["executor-2"]
    [move] = told["moves"]
    assert (move["from"], move["to"], move["share"]) == ("executor-2", "executor-1", told["moved"])


@pytest.mark.parametrize("arguments", [["show", "{}"], ["plan", str(AGENTS), "{}"], ["show", "--config", "{}"]])
def test_a_file_that_is_not_valid_exits_2_naming_the_place(tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "agents.yaml"
    path.write_text(AGENTS.read_text().replace("trust: 0.95", "trust: 1.95"))
    result = run(app, ["ring", *(argument.format(path) for argument in arguments)])
    assert result.exit_code == 2
    assert f"{path}:" in result.output


def test_simulate_tells_keys_churn_and_load() -> None:
    arguments = [
        "ring",
        "simulate",
        "--agents",
        "10",
        "--agents",
        "20",
        "--points",
        "160",
        "--joins",
        "2",
        "--leaves",
        "2",
    ]
    first, second = run(app, arguments), run(app, arguments)
    assert first.exit_code == 0, first.output
    assert "1,600" in first.output
    assert "3,200" in first.output
    assert first.output == second.output


@pytest.mark.parametrize(("name", "magic"), [("ring.svg", b"<?xml"), ("ring.png", b"\x89PNG")])
def test_simulate_draws_a_picture(tmp_path: Path, name: str, magic: bytes) -> None:
    path = tmp_path / name
    result = run(
        app,
        ["ring", "simulate", "--agents", "5", "--points", "160", "--joins", "1", "--leaves", "1", "--plot", str(path)],
    )
    assert result.exit_code == 0, result.output
    assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize(
    ("name", "told"), [("ring.gif", "expected a name that ends in .svg or .png"), ("none/ring.svg", "No such file")]
)
def test_a_picture_that_cannot_be_drawn_exits_2(tmp_path: Path, name: str, told: str) -> None:
    result = run(
        app, ["ring", "simulate", "--agents", "2", "--joins", "0", "--leaves", "0", "--plot", str(tmp_path / name)]
    )
    assert result.exit_code == 2
    assert told in result.output


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run(app, ["ring", "simulate", "--agents", "2", "--plot", str(tmp_path / "ring.svg")])
    assert result.exit_code == 2
    assert "pip install 'phoenixflight-gateway[plot]'" in result.output
