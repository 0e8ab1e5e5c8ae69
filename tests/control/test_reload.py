"""Files change under a running gateway."""

from __future__ import annotations

import pytest

from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, POLICY, RawAgent, StartGateway, eventually, member, write_agents, write_policy

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


@pytest.mark.parametrize("broken", ["kind: [", "apiVersion: phoenixflight.io/v1\nkind: TrustPolicy\nspec: {}\n"])
def test_a_broken_policy_leaves_the_last_good_set_in_force_and_status_says_why(
    agent: RawAgent, start_gateway: StartGateway, broken: str
) -> None:
    gateway = start_gateway([member(agent.port)])
    before = gateway.revision()
    write_policy(gateway.folder, "broken", broken)
    refused = eventually(lambda: gateway.admin("/status").json()["last_refused"])
    assert any("broken.yaml:" in problem for problem in refused["problems"])
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
