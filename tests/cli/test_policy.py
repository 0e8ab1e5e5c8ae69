"""``phoenixflight policy test``: cases beside the policies that they are about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app

ROOT = Path(__file__).parents[2]
run = CliRunner().invoke

TEST = """\
apiVersion: phoenixflight.io/v1
kind: PolicyTest
metadata: {name: t}
spec:
  policies: ..
  members: ../../config/agents.yaml
  cases:
    - name: code is reviewed
      from: spiffe://mesh.local/ns/agents/sa/coder
      headers: {Flight-Capability: code.review}
      expect: allow
      rule: review/who-writes-or-runs-code
      agent: reviewer
"""


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """An empty folder of cases, beside the policies that ship."""
    for name in ("config", "policies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    folder = tmp_path / "policies" / "tests"
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def test_the_policies_that_ship_do_what_their_cases_say() -> None:
    result = run(app, ["policy", "test", str(ROOT / "policies" / "tests")])
    assert result.exit_code == 0, result.output
    assert result.output == "11 cases, 0 failed\n"


def test_a_case_that_holds_says_nothing(tests: Path) -> None:
    (tests / "t.yaml").write_text(TEST)
    result = run(app, ["policy", "test", str(tests / "t.yaml")])
    assert (result.exit_code, result.output) == (0, "1 cases, 0 failed\n")


@pytest.mark.parametrize(
    ("old", "new", "expected", "came"),
    [
        (
            "      expect: allow\n      rule: review/who-writes-or-runs-code\n      agent: reviewer\n",
            "      expect: deny\n      reason: denied-by-policy\n",
            "deny (denied-by-policy)",
            "allow by review/who-writes-or-runs-code, to reviewer",
        ),
        (
            "sa/coder",
            "sa/stranger",
            "allow by review/who-writes-or-runs-code, to reviewer",
            "deny (no-policy-allows): no policy allows spiffe://mesh.local/ns/agents/sa/stranger",
        ),
        ("rule: review/", "rule: reviews/", "allow by reviews/who-", "allow by review/who-"),
        ("agent: reviewer", "agent: executor-1", "allow by review/who-writes-or-runs-code, to executor-1", "allow by"),
    ],
)
def test_a_case_that_comes_out_otherwise_is_told_where_it_stands(
    tests: Path, old: str, new: str, expected: str, came: str
) -> None:
    assert old in TEST
    (tests / "t.yaml").write_text(TEST.replace(old, new))
    result = run(app, ["policy", "test", str(tests)])
    assert result.exit_code == 1
    first, last = result.output.splitlines()
    assert first.startswith(f"{tests / 't.yaml'}:8:13: code is reviewed: expected {expected}")
    assert f"; came {came}" in first
    assert last == "1 cases, 1 failed"


def test_a_case_may_set_the_time(tests: Path) -> None:
    policy = tests.parent / "review.yaml"
    policy.write_text(policy.read_text() + "      when: now < timestamp('2026-01-01T00:00:00Z')\n")
    (tests / "t.yaml").write_text(TEST.replace("expect: allow", "now: 2025-12-31T23:59:59Z\n      expect: allow"))
    assert run(app, ["policy", "test", str(tests)]).exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("expect: allow", "expect: maybe", "t.yaml:11:15: spec.cases.0.expect: expected 'allow', 'ask' or 'deny'"),
        ("agent: reviewer", "reason: replayed", "t.yaml:13:15: spec.cases.0.reason: only a refusal has a reason"),
        ("expect: allow", "expect: deny", "t.yaml:13:14: spec.cases.0.agent: a refused packet goes to no agent"),
        ("rule:", "now: noon\n      rule:", "t.yaml:12:12: spec.cases.0.now: expected a time with its zone"),
        ("policies: ..", "policies: ../none", "none:1:1: No such file or directory"),
        ("kind: PolicyTest", "kind: TrustPolicy", "t.yaml:2:7: kind: expected PolicyTest, found TrustPolicy"),
    ],
)
def test_a_file_that_is_not_valid_exits_2(tests: Path, old: str, new: str, told: str) -> None:
    (tests / "t.yaml").write_text(TEST.replace(old, new))
    result = run(app, ["policy", "test", str(tests)])
    assert result.exit_code == 2
    assert told in result.output


def test_a_refusal_is_expected_for_one_of_the_reasons_there_are(tests: Path) -> None:
    lines = TEST.splitlines(keepends=True)
    (tests / "t.yaml").write_text("".join(lines[:10]) + "      expect: deny\n      reason: denied\n")
    result = run(app, ["policy", "test", str(tests)])
    assert result.exit_code == 2
    assert "t.yaml:12:15: spec.cases.0.reason: expected one of approval-denied, " in result.output


def test_no_cases_at_all_are_no_success(tests: Path) -> None:
    result = run(app, ["policy", "test", str(tests)])
    assert result.exit_code == 2
    assert "no PolicyTest documents are here" in result.output
