"""The flight recorder of a running gateway: what it has, and what is left of it after the worst."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from gateway.agent import FlightAuth
from gateway.cli import app
from gateway.control.gateway import OPEN_AFTER_S
from gateway.handoff import Outcome
from gateway.recorder import Reader, Record
from gateway.recorder.folder import verify_folder
from gateway.recorder.segments import segments_in
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, POLICY, RawAgent, RunningGateway, StartGateway, eventually, member, write_policy
from tests.fleet import numbers
from tests.redis_server import RedisServer
from tests.telemetry.collectors import attributes, over_http

RECORDER = {"recorder": {"folder": "recorder"}}
REFUSED = "urn:phoenixflight:not-recorded"


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


def records(gateway: RunningGateway, **wanted: str) -> list[Record]:
    return list(Reader(gateway.folder / "recorder").records(**wanted))


def recorded(gateway: RunningGateway, count: int) -> list[Record]:
    """The records, once there are `count` of them."""
    found = eventually(lambda: some if len(some := records(gateway)) >= count else None)
    assert len(found) == count
    return found


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.output


def verified(gateway: RunningGateway) -> str:
    code, told = run("recorder", "verify", gateway.folder / "recorder")
    assert code == 0, told
    return told


def metric(gateway: RunningGateway, name: str) -> float:
    return float(numbers(gateway.admin("/metrics").text, f"phoenixflight_recorder_{name}")[""])


def replay(gateway: RunningGateway, policies: Path) -> tuple[int, str]:
    config = gateway.folder / "gateway.yaml"
    return run("policy", "replay", "--config", config, "--from", gateway.folder / "recorder", "--with", policies)


def test_what_was_recorded_replays_without_flips_under_the_policies_that_were_in_force_and_keeps_no_secret(
    agent: RawAgent, start_gateway: StartGateway, certs: Path, tmp_path: Path
) -> None:
    agents = [member(agent.port), member(agent.port, "executor-2")]
    gateway = start_gateway(agents, **RECORDER)
    signing = FlightAuth.from_svid(certs / "planner.pem", certs / "planner-key.pem")
    secrets = {"authorization": "Bearer secret", "cookie": "secret=1", "x-key": "secret"}
    with gateway.client(http2=True) as planner, gateway.client("mallory") as mallory:
        for number in range(20):
            planner.post(f"/run?secret={number}", headers={**CAPABILITY, **secrets}, content=b"secret")
        planner.post("/run", headers={**CAPABILITY, "flight-conversation": '"c-1"'}, auth=signing, content=b"secret")
        planner.post("/run", headers={**CAPABILITY, "signature": "flight=:AA==:"})
        planner.post("/run")
        planner.post("/run", headers={"flight-capability": "made.up"})
        mallory.post("/run", headers=CAPABILITY)
        planner.post("/run", headers={**CAPABILITY, "flight-credential": "secret.secret.secret"})
    found = recorded(gateway, 26)
    assert {each.agent for each in found[:20]} == {"executor-1", "executor-2"}
    assert found[20].signer == "spiffe://mesh.local/ns/agents/sa/planner"
    assert found[20].content_digest.startswith("sha-256=:")
    assert [each.reason for each in found[21:]] == [
        "signature-invalid",
        "malformed-packet",
        "capability-unknown",
        "denied-by-policy",
        "credential-invalid",
    ]
    (chain,) = (gateway.folder / "recorder").iterdir()
    assert not any(b"secret" in path.read_bytes() for path in chain.iterdir())
    gateway.stop()
    told = "26 packets (3 were refused before policy was asked), 0 flips\n"
    assert replay(gateway, gateway.folder / "policies") == (0, told)
    candidate = tmp_path / "candidate"
    (candidate / "policies").mkdir(parents=True)
    deny = {"name": "signed", "effect": "deny", "from": ["spiffe://mesh.local"], "when": "packet.signed"}
    spec = {"capabilities": ["*"], "rules": [deny, *POLICY["spec"]["rules"]]}
    write_policy(candidate, "test", {**POLICY, "spec": spec})
    code, output = replay(gateway, candidate / "policies")
    assert code == 1
    assert output.startswith(f"allow -> refuse: {found[20].flight_id} ")
    assert output.endswith("1 flips\n")


def test_usage_is_recorded_from_the_answers_head(raw_agent, start_gateway: StartGateway) -> None:
    def spend(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nflight-usage: tokens=812\r\ncontent-length: 2\r\n\r\nok")

    gateway = start_gateway([member(raw_agent(spend).port)], **RECORDER)
    with gateway.client() as client:
        client.get("/run", headers={**CAPABILITY, "flight-budget": "tokens=1000"})
    (record,) = recorded(gateway, 1)
    assert (record.budget, record.usage) == ("tokens=1000", "tokens=812")
    assert gateway.handoff()["usage"] == "tokens=812"


def test_packets_are_shown_below_their_parents_exported_and_erased_beside_the_gateway(
    agent: RawAgent, start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = start_gateway([member(agent.port)], **RECORDER)
    folder = gateway.folder / "recorder"
    with gateway.client() as client:
        for name, parent, conversation in (("p-1", "", "c-1"), ("p-2", "p-1", "c-1"), ("p-3", "", "c-2")):
            fields = {"flight-id": f'"{name}"', "flight-conversation": f'"{conversation}"', "flight-task": '"t"'}
            parents = {"flight-parent": f'"{parent}"'} if parent else {}
            client.get("/run", headers={**CAPABILITY, **fields, **parents})
    recorded(gateway, 3)
    code, told = run("recorder", "show", folder, "--task", "t")
    assert code == 0
    assert [line[: line.index("20")] for line in told.splitlines()] == ["", "  ", ""]
    assert " completed p-2 spiffe://mesh.local/ns/agents/sa/planner -> executor-1 code.execute " in told
    assert run("recorder", "show", folder, "--packet", "p-3")[1].count("\n") == 1
    assert run("recorder", "export", folder, "--out", tmp_path / "out.jsonl") == (0, "")
    assert (tmp_path / "out.jsonl").read_text().count("\n") == 3
    assert run("recorder", "erase", folder, "--conversation", "c-1") == (0, "chain-0: done by the gateway\n")
    assert run("recorder", "show", folder, "--conversation", "c-1")[0] == 1
    assert [each.flight_id for each in records(gateway)] == ["p-3"]
    assert "3 records" in verified(gateway)
    assert "2 erased" in verified(gateway)
    gateway.stop()
    assert run("recorder", "erase", folder, "--conversation", "c-2") == (0, "chain-0: 1 records erased\n")
    assert "3 erased" in verified(gateway)


def test_a_packet_that_is_long_under_way_leaves_a_trace_before_its_end(raw_agent, start_gateway: StartGateway) -> None:
    held = threading.Event()

    def hold(agent: RawAgent, connection: socket.socket) -> None:
        agent.read_head(connection)
        held.wait(60)

    gateway = start_gateway([member(raw_agent(hold).port)], **RECORDER)
    with socket.create_connection(("127.0.0.1", gateway.plain_port)) as connection:
        connection.sendall(
            b'GET /run HTTP/1.1\r\nhost: a\r\nflight-capability: code.execute\r\nflight-id: "o-1"\r\n\r\n'
        )
        (record,) = eventually(lambda: records(gateway, flight_id="o-1"), OPEN_AFTER_S + 20)
        assert (record.outcome, record.agent, record.rule) == (Outcome.OPEN, "executor-1", "agents")
        gateway.process.kill()
        gateway.process.wait()
        held.set()
    gateway.start_again()
    assert [each.outcome for each in records(gateway, flight_id="o-1")] == [Outcome.OPEN]
    verified(gateway)


@pytest.mark.parametrize("kind", ["a file", "below a file"])
def test_a_folder_that_cannot_be_written_stops_the_start_with_its_place(
    kind: str, start_gateway: StartGateway, certs: Path
) -> None:
    gateway = start_gateway([], **RECORDER)
    gateway.stop()
    (gateway.folder / "plain").touch()
    config = gateway.folder / "gateway.yaml"
    name = "plain" if kind == "a file" else "plain/recorder"
    config.write_text(config.read_text().replace("folder: recorder", f"folder: {name}"))
    for command in ("run", "check"):
        again = subprocess.run(
            [sys.executable, "-m", "gateway.cli", command, "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert again.returncode == 2
        assert again.stderr.startswith(f"{config}:")
        assert f"spec.recorder.folder: {gateway.folder / name} cannot be written: " in again.stderr


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


class Load:
    """A caller that sends one packet after the other, and notes when each was answered."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.answered: dict[str, float] = {}
        self.refused = 0
        self._gateway = gateway
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        with httpx.Client(base_url=self._gateway.plain_url, timeout=5, trust_env=False) as client:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                name = f"{id(self)}-{number}"
                try:
                    answer = client.get("/run", headers={**CAPABILITY, "flight-id": f'"{name}"'})
                except httpx.TransportError:
                    continue
                if answer.status_code == 200:
                    self.answered[name] = time.monotonic()
                elif REFUSED in answer.text:
                    self.refused += 1
                    time.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def load(gateway: RunningGateway) -> Iterator[Load]:
    sending = Load(gateway)
    yield sending
    sending.stop()


@pytest.mark.slow
def test_after_ten_kills_under_load_the_chain_holds_and_only_the_last_moment_is_lost(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)], telemetry={"accessLog": "none"}, **RECORDER)
    answered = 0
    for _ in range(10):
        with load(gateway) as sending:
            eventually(lambda sending=sending: len(sending.answered) > 50)
            time.sleep(1.2)
            killed = time.monotonic()
            gateway.process.send_signal(signal.SIGKILL)
            gateway.process.wait()
        gateway.start_again()
        verified(gateway)
        ids = [each.flight_id for each in records(gateway)]
        assert len(set(ids)) == len(ids)
        lost = set(sending.answered) - set(ids)
        answered += len(sending.answered)
        assert all(sending.answered[each] > killed - 1 for each in lost), "answered long before, and not recorded"
    gateway.stop()
    (found,) = verify_folder(gateway.folder / "recorder")
    assert found.report.flaw is None
    assert answered * 0.9 < found.report.records


@pytest.mark.parametrize("on_failure", ["refuse", "continue"])
def test_a_full_disk_refuses_packets_or_lets_them_go_on_and_nothing_is_lost_when_there_is_room_again(
    on_failure: str, agent: RawAgent, start_gateway: StartGateway
) -> None:
    settings = {"folder": "recorder", "onFailure": on_failure}
    gateway = start_gateway([member(agent.port)], telemetry={"accessLog": "none"}, recorder=settings)
    pid = gateway.process.pid
    with load(gateway) as sending:
        eventually(lambda: len(records(gateway)) > 20)
        (segment,) = segments_in(gateway.folder / "recorder" / "chain-0")
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        # As of a full disk: files cannot grow any more.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (segment.stat().st_size + 5000, most))
        eventually(lambda: metric(gateway, "trouble") == 1)
        if on_failure == "refuse":
            eventually(lambda: sending.refused > 5)
            before = len(sending.answered)
            eventually(lambda: sending.refused > 20)
            assert len(sending.answered) <= before + 1
            assert gateway.admin("/readyz").status_code == 503
        else:
            before = len(sending.answered)
            eventually(lambda: len(sending.answered) > before + 20)
        assert metric(gateway, "unsynced_records") > 0
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
        eventually(lambda: metric(gateway, "trouble") == 0)
        before = len(sending.answered)
        eventually(lambda: len(sending.answered) > before + 20)
    gateway.stop()
    assert "the flight recorder is in trouble: " in gateway.log()
    assert "File too large" in gateway.log()
    verified(gateway)
    assert {each.flight_id for each in records(gateway)} >= set(sending.answered)
    assert (sending.refused == 0) == (on_failure == "continue")


def test_rules_may_want_their_packets_recorded_while_others_go_on(agent: RawAgent, start_gateway: StartGateway) -> None:
    rule = {"name": "all", "effect": "allow", "from": ["spiffe://mesh.local/**"], "audit": "required"}
    settings = {"folder": "recorder", "onFailure": "continue"}
    gateway = start_gateway([member(agent.port, capabilities=["code.execute", "code.deploy"])], recorder=settings)
    audited = {**POLICY, "metadata": {"name": "a"}, "spec": {"capabilities": ["code.deploy"], "rules": [rule]}}
    before = gateway.revision()
    write_policy(gateway.folder, "audited", audited)
    eventually(lambda: gateway.revision() != before)
    limit = resource.RLIMIT_FSIZE
    _, most = resource.prlimit(gateway.process.pid, limit)
    with httpx.Client(base_url=gateway.plain_url, timeout=5, trust_env=False) as client:

        def deploy() -> httpx.Response:
            return client.get("/run", headers={"flight-capability": "code.deploy"})

        assert deploy().status_code == 200
        resource.prlimit(gateway.process.pid, limit, (1, most))
        refused = eventually(lambda: answer if (answer := deploy()).status_code == 503 else None)
        assert refused.json()["type"] == REFUSED
        assert client.get("/run", headers=CAPABILITY).status_code == 200
        assert gateway.admin("/readyz").status_code == 200
        assert metric(gateway, "trouble") == 1
        resource.prlimit(gateway.process.pid, limit, (most, most))
        eventually(lambda: deploy().status_code == 200)


def test_records_go_to_a_collector_too_and_one_that_fails_costs_no_packet(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    with over_http() as collector:
        telemetry = {"accessLog": "none", "records": {"otlpEndpoint": collector.url, "timeout": "1s"}}
        gateway = start_gateway([member(agent.port)], telemetry=telemetry, **RECORDER)
        with httpx.Client(base_url=gateway.plain_url, timeout=5, trust_env=False) as client:
            assert client.get("/run?token=secret", headers={**CAPABILITY, "flight-id": '"one"'}).status_code == 200
            (sent,) = eventually(lambda: list(collector.records))
            assert sent.event_name == "phoenixflight.record"
            assert attributes(sent)["flight.id"] == "one"
            (kept,) = eventually(lambda: records(gateway))
            assert json.loads(sent.body.string_value) == json.loads(msgspec.json.encode(kept))
            collector.statuses = [400]
            assert client.get("/run", headers=CAPABILITY).status_code == 200
            eventually(lambda: 'unshipped_records_total{reason="collector"} 1.0' in gateway.admin("/metrics").text)
            assert metric(gateway, "shipped_records_total") == 1
            eventually(lambda: len(records(gateway)) == 2)


def test_what_must_be_recorded_needs_a_recorder(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    rule = {**POLICY["spec"]["rules"][0], "audit": "required"}
    write_policy(gateway.folder, "test", {**POLICY, "spec": {**POLICY["spec"], "rules": [rule]}})
    refused = eventually(lambda: gateway.admin("/status").json()["last_refused"])
    assert "what must be recorded needs spec.recorder" in refused["problems"][0]


@pytest.mark.slow
def test_each_worker_has_a_chain_and_one_that_replaces_another_goes_on_with_it(
    agent: RawAgent, start_gateway: StartGateway, redis: RedisServer
) -> None:
    gateway = start_gateway([member(agent.port)], workers=2, redis={"url": redis.url}, **RECORDER)
    folder = gateway.folder / "recorder"
    with load(gateway):
        eventually(lambda: len(records(gateway)) > 5)
        first = gateway.admin("/status").json()["workers"][0]["pid"]
        os.kill(first, signal.SIGKILL)
        restarts = {"": 1}
        eventually(lambda: numbers(gateway.admin("/metrics").text, "phoenixflight_worker_restarts_total") == restarts)
        eventually(lambda: all(each["status"] for each in gateway.admin("/status").json()["workers"]), 40)
        before = len(records(gateway))
        eventually(lambda: len(records(gateway)) > before + 5, 30)
    gateway.stop()
    verified(gateway)
    assert sorted(path.name for path in folder.iterdir()) == ["chain-0", "chain-1"]
