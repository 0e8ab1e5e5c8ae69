"""The command line, and the configuration that ships."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app

ROOT = Path(__file__).parents[2]
run = CliRunner().invoke


@pytest.fixture
def shipped(tmp_path: Path, certs: Path) -> Path:
    """A copy of config/ and policies/, with certificates where they are looked for."""
    for name in ("config", "policies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copytree(certs, tmp_path / "certs")
    return tmp_path / "config" / "gateway.yaml"


def test_the_shipped_configuration_passes_check(shipped: Path) -> None:
    result = run(app, ["check", "--config", str(shipped)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("ok: 2 listeners, 6 policies")


def test_check_names_file_line_and_column_and_exits_2(shipped: Path) -> None:
    agents = shipped.with_name("agents.yaml")
    agents.write_text(agents.read_text().replace("trust: 0.95", "trust: 2"))
    shipped.write_text(shipped.read_text().replace("clientAuth", "clientauth"))
    result = run(app, ["check", "--config", str(shipped)])
    assert result.exit_code == 2
    line = 1 + next(at for at, text in enumerate(shipped.read_text().splitlines()) if "clientauth" in text)
    assert f"{shipped}:{line}:7: unknown field 'clientauth'; did you mean 'clientAuth'?" in result.output


def test_check_of_a_missing_file_exits_2(tmp_path: Path) -> None:
    result = run(app, ["check", "--config", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "No such file" in result.output


def explain(config: Path, caller: str, *headers: str) -> tuple[int, str]:
    arguments = ["explain", "--config", str(config), "--from", caller]
    for header in headers:
        arguments += ["-H", header]
    result = run(app, arguments)
    return result.exit_code, result.output


def test_explain_names_the_rule_the_agent_and_why_others_were_not_picked(shipped: Path) -> None:
    code, output = explain(
        shipped,
        "spiffe://mesh.local/ns/agents/sa/coder",
        "flight-capability: code.execute",
        'flight-conversation: "c-1"',
    )
    assert code == 0
    assert "allow: policy code-execution, rule coders-in-sandboxes, agent executor-" in output
    assert "reviewer: lacks code.execute" in output
    assert "code-execution/coders-in-sandboxes: allows agents with trust of at least 0.85, tier=sandbox" in output
    assert "when packet.hops > 0: true" in output
    assert "with shadow policies enforced: refuse (denied-by-policy), by tasks/no-work-without-a-task" in output


def test_explain_of_a_refusal_exits_3_with_the_reason(shipped: Path) -> None:
    code, output = explain(shipped, "spiffe://mesh.local/ns/quarantine/sa/x", "flight-capability: code.review")
    assert code == 3
    assert "refuse 403 denied-by-policy (policy quarantine, rule quarantined-namespace)" in output


def test_explain_supposes_a_signature_where_it_is_told_to(shipped: Path) -> None:
    partner = "spiffe://partner.example/ns/agents/sa/coder"
    digest = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
    headers = ("flight-capability: code.review", f"content-digest: {digest}")
    code, output = explain(shipped, partner, *headers)
    assert code == 3
    assert "refuse 401 signature-invalid" in output
    assert "require signature by the caller, contentDigest: no signature that it accepts" in output
    arguments = ["explain", "--config", str(shipped), "--from", partner, "--signer", partner]
    result = run(app, [*arguments, "-H", headers[0], "-H", headers[1]])
    assert result.exit_code == 0, result.output
    assert "require signature by the caller, contentDigest: met" in result.output


def test_run_with_bad_configuration_exits_2_naming_the_place(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("apiVersion: phoenixflight.io/v1\nkind: Gateway\nmetadata: {name: x}\nspec: {listeners: []}\n")
    result = run(app, ["run", "--config", str(config)])
    assert result.exit_code == 2
    assert f"{config}:4:" in result.output
