"""Files change under a running gateway."""

from __future__ import annotations

import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.control import snapshot as snapshots
from gateway.control.config import load_config
from gateway.control.reload import MAX_EVENTS, MAX_TOLD, ReloadEvent, Status, attempt, told
from gateway.decision import EMPTY
from gateway.documents import MAX_TEXT_BYTES
from tests.conformance.test_http1 import answer_each
from tests.conftest import (
    CAPABILITY,
    POLICY,
    ConfigMap,
    RawAgent,
    StartGateway,
    eventually,
    member,
    write_agents,
    write_policy,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)

DENY = {
    **POLICY,
    "metadata": {"name": "stop"},
    "spec": {
        "capabilities": ["*"],
        "rules": [{"name": "everybody", "effect": "deny", "from": ["spiffe://mesh.local"]}],
    },
}


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


def test_a_policy_edit_takes_effect_on_open_connections_without_a_restart(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)])
    with gateway.client(http2=True) as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
        before = gateway.revision()
        write_policy(gateway.folder, "stop", DENY)
        eventually(lambda: gateway.revision() != before)
        assert client.post("/run", headers=CAPABILITY).json()["policy"] == "stop"
        (gateway.folder / "policies" / "stop.yaml").unlink()
        eventually(lambda: gateway.revision() == before)
        assert client.post("/run", headers=CAPABILITY).status_code == 200


@pytest.mark.parametrize(
    "broken",
    [
        "kind: [",
        "apiVersion: phoenixflight.io/v1\nkind: TrustPolicy\nspec: {}\n",
        "apiVersion: phoenixflight.io/v1\nkind: TrustPolicy\nmetadata: {name: half}\nspec:\n  rules: [{na",
        "x" * (MAX_TEXT_BYTES + 1),
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [" + "*b, " * 1000 + "*b]\n",
    ],
    ids=["syntax", "fields", "half", "giant", "aliases"],
)
def test_a_broken_policy_leaves_the_last_good_set_in_force_and_status_says_why(
    agent: RawAgent, start_gateway: StartGateway, broken: str
) -> None:
    gateway = start_gateway([member(agent.port)])
    before = gateway.revision()
    write_policy(gateway.folder, "broken", broken)
    refused = eventually(lambda: gateway.admin("/status").json()["last_refused"])
    assert "broken.yaml:" in refused["problems"][0]
    assert gateway.revision() == before
    assert "phoenixflight_last_reload_successful 0.0" in gateway.admin("/metrics").text
    with gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
    (gateway.folder / "policies" / "broken.yaml").unlink()
    eventually(lambda: gateway.admin("/status").json()["in_step_with_files"])


def test_agents_come_and_go(raw_agent, start_gateway: StartGateway) -> None:
    first, second = raw_agent(answer_each), raw_agent(answer_each)
    gateway = start_gateway([member(first.port, "first")])
    with gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY).headers["flight-agent"] == '"first"'
        before = gateway.revision()
        write_agents(gateway.folder, [member(second.port, "second")])
        eventually(lambda: gateway.revision() != before)
        assert client.post("/run", headers=CAPABILITY).headers["flight-agent"] == '"second"'
        (gateway.folder / "agents.yaml").unlink()
        eventually(lambda: gateway.admin("/status").json()["last_refused"])
        assert client.post("/run", headers=CAPABILITY).headers["flight-agent"] == '"second"'


def test_a_folder_of_policies_that_vanishes_is_refused_and_seen_when_it_is_back(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)])
    before = gateway.revision()
    policies = gateway.folder / "policies"
    shutil.rmtree(policies)
    refused = eventually(lambda: gateway.admin("/status").json()["last_refused"])
    assert "policies:1:1: No such file" in refused["problems"][0]
    assert gateway.revision() == before
    policies.mkdir()
    write_policy(gateway.folder, "stop", DENY)
    eventually(lambda: gateway.revision() != before)
    in_force = gateway.revision()
    write_policy(gateway.folder, "test", POLICY)
    eventually(lambda: gateway.revision() != in_force)


def test_a_mounted_config_map_is_followed(agent: RawAgent, start_gateway: StartGateway, tmp_path: Path) -> None:
    policies = ConfigMap(tmp_path / "policies", {"test.yaml": yaml.safe_dump(POLICY)})
    gateway = start_gateway([member(agent.port)], policies=str(policies.folder))
    before = gateway.revision()
    policies.swap({"stop.yaml": yaml.safe_dump(DENY)})
    eventually(lambda: gateway.revision() != before)
    with gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY).json()["policy"] == "stop"
    policies.swap({"test.yaml": yaml.safe_dump(POLICY)})
    eventually(lambda: gateway.revision() == before)


def test_mounted_keys_are_followed(agent: RawAgent, start_gateway: StartGateway, tmp_path: Path) -> None:
    keys = ConfigMap(tmp_path / "keys", {"keys.json": '{"keys": []}'})
    gateway = start_gateway([member(agent.port)], keys=str(keys.folder / "keys.json"))
    before = gateway.revision()
    keys.swap({"keys.json": '{"keys": [{}]}'})
    refused = eventually(lambda: gateway.admin("/status").json()["last_refused"])
    assert "keys.json:1:" in refused["problems"][0]
    secret = '{"kty": "oct", "kid": "k", "sub": "spiffe://mesh.local/a", "k": "%s"}' % ("A" * 43)
    keys.swap({"keys.json": f'{{"keys": [{secret}]}}'})
    eventually(lambda: gateway.revision() != before)
    assert gateway.admin("/status").json()["in_step_with_files"]


def test_sighup_has_everything_read_again(agent: RawAgent, start_gateway: StartGateway, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.yaml"
    gateway = start_gateway([member(agent.port)])
    before = gateway.revision()
    elsewhere.write_text(yaml.safe_dump(POLICY).replace("name: test", "name: linked"))
    (gateway.folder / "policies" / "linked.yaml").symlink_to(elsewhere)
    eventually(lambda: gateway.revision() != before)
    in_force = gateway.revision()
    elsewhere.write_text(yaml.safe_dump(POLICY).replace("name: test", "name: again"))  # behind a link: nobody sees it
    gateway.process.send_signal(signal.SIGHUP)
    eventually(lambda: gateway.revision() != in_force)


def test_status_keeps_a_history_and_tells_warnings_and_readiness_stays(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)])

    def status() -> dict[str, Any]:
        assert gateway.admin("/readyz").status_code == 200
        return dict(gateway.admin("/status").json())

    first = status()
    assert first["warnings"] == []
    typo = yaml.safe_dump(POLICY).replace("name: test", "name: typo").replace("'*'", "code.exekute")
    write_policy(gateway.folder, "typo", typo)
    warned = eventually(lambda: (told := status())["warnings"] and told)
    assert "typo.yaml:" in warned["warnings"][0]
    assert "code.exekute" in warned["warnings"][0]
    assert "code.exekute" in gateway.log()
    write_policy(gateway.folder, "typo", "kind: [")
    eventually(lambda: status()["last_refused"])
    write_policy(gateway.folder, "typo", typo)
    told = eventually(lambda: (told := status())["in_step_with_files"] and told)
    came_to = [event.get("revision") or "refused" for event in told["history"]]
    assert came_to == [first["revision"], warned["revision"], "refused", warned["revision"]]


def test_what_is_told_is_bounded() -> None:
    status = Status("r", NOW, [], (), NOW)
    for number in range(MAX_EVENTS + 1):
        status.history.append(ReloadEvent(NOW, str(number)))
    assert [event.revision for event in status.history] == [str(number) for number in range(1, MAX_EVENTS + 1)]
    assert told(list(range(MAX_TOLD + 2)))[-2:] == (str(MAX_TOLD - 1), "and 2 more")


def test_a_failure_of_the_gateway_itself_is_told_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "apiVersion: phoenixflight.io/v1\nkind: Gateway\nmetadata: {name: g}\n"
        "spec: {listeners: [{name: a, address: '127.0.0.1:0', tls: false}], policies: p.yaml, members: a.yaml}\n"
    )
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(POLICY))
    write_agents(tmp_path, [])
    path = tmp_path / "gateway.yaml"
    config = load_config(path)
    (tmp_path / "a.yaml").symlink_to("agents.yaml")
    found = attempt(path, config, EMPTY)
    assert found.loaded is not None
    assert attempt(path, config, found.loaded.snapshot).loaded is None
    monkeypatch.setattr(snapshots, "build", lambda *_: 1 / 0)
    failed = attempt(path, config, EMPTY)
    assert isinstance(failed.defect, ZeroDivisionError)
    assert "ZeroDivisionError" in failed.problems[0]
