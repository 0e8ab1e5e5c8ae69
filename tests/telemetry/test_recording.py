"""What a running gateway records, and that it can be tried again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.agent import FlightAuth
from gateway.cli import app
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, POLICY, RawAgent, RunningGateway, StartGateway, eventually, member, write_policy

RECORDING = {"telemetry": {"accessLog": "access.log", "recording": "recording.jsonl"}}


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


def recorded(gateway: RunningGateway, count: int) -> list[dict[str, Any]]:
    """The records, once there are `count` of them."""
    path = gateway.folder / "recording.jsonl"
    lines = eventually(lambda: found if len(found := path.read_text().splitlines()) >= count else None)
    assert len(lines) == count
    return [json.loads(line) for line in lines]


def replay(gateway: RunningGateway, policies: Path) -> tuple[int, str]:
    config, recording = gateway.folder / "gateway.yaml", gateway.folder / "recording.jsonl"
    arguments = ["--config", str(config), "--from", str(recording), "--with", str(policies)]
    result = CliRunner().invoke(app, ["policy", "replay", *arguments])
    return result.exit_code, result.output


def test_a_recording_replays_without_flips_under_the_policies_that_made_it_and_keeps_no_secret(
    agent: RawAgent, start_gateway: StartGateway, certs: Path, tmp_path: Path
) -> None:
    agents = [member(agent.port), member(agent.port, "executor-2")]
    gateway = start_gateway(agents, **RECORDING)
    signing = FlightAuth.from_svid(certs / "planner.pem", certs / "planner-key.pem")
    secrets = {"authorization": "Bearer secret", "cookie": "secret=1", "flight-credential": "secret", "x-key": "secret"}
    with gateway.client(http2=True) as planner, gateway.client("mallory") as mallory:
        for number in range(20):
            planner.post(f"/run?secret={number}", headers={**CAPABILITY, **secrets}, content=b"secret")
        planner.post("/run", headers={**CAPABILITY, "flight-conversation": '"c-1"'}, auth=signing, content=b"secret")
        planner.post("/run", headers={**CAPABILITY, "signature": "flight=:AA==:"})
        planner.post("/run")
        planner.post("/run", headers={"flight-capability": "made.up"})
        mallory.post("/run", headers=CAPABILITY)
    lines = recorded(gateway, 25)
    assert {line.get("agent") for line in lines[:20]} == {"executor-1", "executor-2"}
    assert lines[20]["signer"] == "spiffe://mesh.local/ns/agents/sa/planner"
    assert [line.get("reason") for line in lines[21:]] == [
        "signature-invalid",
        "malformed-packet",
        "capability-unknown",
        "denied-by-policy",
    ]
    assert "secret" not in (gateway.folder / "recording.jsonl").read_text()
    gateway.stop()
    told = "25 packets (2 were refused before policy was asked), 0 flips\n"
    assert replay(gateway, gateway.folder / "policies") == (0, told)
    candidate = tmp_path / "candidate"
    (candidate / "policies").mkdir(parents=True)
    deny = {"name": "signed", "effect": "deny", "from": ["spiffe://mesh.local"], "when": "packet.signed"}
    spec = {"capabilities": ["*"], "rules": [deny, *POLICY["spec"]["rules"]]}
    write_policy(candidate, "test", {**POLICY, "spec": spec})
    code, output = replay(gateway, candidate / "policies")
    assert code == 1
    assert output.startswith(f"allow -> refuse: {lines[20]['flight_id']} ")
    assert output.endswith("1 flips\n")


def test_a_recording_that_cannot_be_written_stops_the_start_with_its_name(
    start_gateway: StartGateway, certs: Path
) -> None:
    gateway = start_gateway([], **RECORDING)
    gateway.stop()
    (gateway.folder / "recording.jsonl").unlink()
    (gateway.folder / "recording.jsonl").mkdir()
    config = gateway.folder / "gateway.yaml"
    command = [sys.executable, "-m", "gateway.cli", "run", "--config", str(config)]
    again = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert again.returncode == 1
    assert "cannot start: " in again.stderr
    assert "recording.jsonl" in again.stderr


def test_nothing_is_recorded_unless_it_is_asked_for(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    with gateway.client() as client:
        client.post("/run", headers=CAPABILITY)
    gateway.stop()
    assert sorted(path.name for path in gateway.folder.iterdir()) == [
        "access.log",
        "agents.yaml",
        "gateway.yaml",
        "policies",
        "stderr.log",
    ]
