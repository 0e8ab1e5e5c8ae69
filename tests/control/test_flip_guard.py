"""A set that is valid, and would change more than its author may have meant."""

from __future__ import annotations

import signal

from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, StartGateway, eventually, member, write_agents, write_policy
from tests.control.test_reload import DENY


def test_a_set_that_flips_too_many_recent_packets_waits_for_a_sighup(raw_agent, start_gateway: StartGateway) -> None:
    agent = raw_agent(answer_each)
    gateway = start_gateway([member(agent.port)], reload={"maxFlips": 1})
    before = gateway.revision()
    with gateway.client() as client:
        for _ in range(3):
            assert client.post("/run", headers=CAPABILITY).status_code == 200
        write_policy(gateway.folder, "stop", DENY)
        refused = eventually(lambda: gateway.admin("/status").json()["last_refused"])
        (problem,) = refused["problems"]
        assert problem.startswith("3 of the latest 3 packets would come out otherwise, and reload.maxFlips is 1; ")
        assert "spiffe://mesh.local/ns/agents/sa/planner, code.execute: allow -> refuse" in problem
        assert client.post("/run", headers=CAPABILITY).status_code == 200
        assert gateway.revision() == before

        gateway.process.send_signal(signal.SIGHUP)
        eventually(lambda: gateway.revision() != before)
        assert client.post("/run", headers=CAPABILITY).status_code == 403


def test_another_agent_is_no_flip(raw_agent, start_gateway: StartGateway) -> None:
    first, second = raw_agent(answer_each), raw_agent(answer_each)
    gateway = start_gateway([member(first.port)], reload={"maxFlips": 0})
    before = gateway.revision()
    with gateway.client() as client:
        client.post("/run", headers=CAPABILITY)
        write_agents(gateway.folder, [member(second.port, "executor-2")])
        eventually(lambda: gateway.revision() != before)
        assert client.post("/run", headers=CAPABILITY).headers["flight-agent"] == '"executor-2"'
