"""``phoenixflight check`` tells everything that is wrong, and nothing about what is right."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def phoenixflight(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a newcomer has after ``phoenixflight certs dev --out certs``."""
    for name in ("config", "policies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    made = phoenixflight(tmp_path, "certs", "dev", "--out", "certs")
    assert made.returncode == 0, made.stderr
    return tmp_path


def test_what_ships_is_valid_from_the_first_minute(clone: Path) -> None:
    checked = phoenixflight(clone, "check", "--strict")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith("ok: 2 listeners, 6 policies (6 rules), 3 agents, revision ")


def test_warnings_are_told_and_fail_where_that_is_wanted(clone: Path) -> None:
    policy = clone / "policies" / "review.yaml"
    policy.write_text(policy.read_text().replace('["code.review"]', '["code.review", "code.reveiw"]'))
    checked = phoenixflight(clone, "check")
    told = "no agent offers anything that 'code.reveiw' covers; check the spelling, or remove it"
    assert checked.returncode == 0
    assert checked.stderr.startswith("warning: ")
    assert checked.stderr.endswith(f"policies/review.yaml:7:33: {told}\n")
    assert checked.stdout.startswith("ok: ")
    strict = phoenixflight(clone, "check", "--strict")
    assert (strict.returncode, strict.stdout, strict.stderr) == (2, "", checked.stderr)


def test_problems_of_policies_and_members_are_told_together_on_stderr(clone: Path) -> None:
    agents, policy = clone / "config" / "agents.yaml", clone / "policies" / "review.yaml"
    agents.write_text(agents.read_text().replace("trust: 0.95", "trust: high"))
    policy.write_text(policy.read_text().replace("effect: allow", "effect: permit"))
    checked = phoenixflight(clone, "check")
    assert (checked.returncode, checked.stdout) == (2, "")
    told = checked.stderr.splitlines()
    assert len(told) == 2
    assert told[0].endswith("review.yaml:10:15: spec.rules.0.effect: expected 'allow', 'ask' or 'deny'")
    assert told[1].endswith("agents.yaml:20:14: spec.agents.2.trust: expected a number")


def test_missing_certificates_are_told(clone: Path) -> None:
    (clone / "certs" / "gateway-key.pem").unlink()
    checked = phoenixflight(clone, "check")
    assert checked.returncode == 2
    assert "gateway-key.pem" in checked.stderr
