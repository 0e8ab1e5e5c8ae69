"""Terms of a rule and modes of a policy, as callers meet them: rates, and shadow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.trust import AGENTS, enforce, policy, refusal, rule, signed, svid_auth, take_messages
from tests.conftest import CAPABILITY, RawAgent, StartGateway, member
from tests.waiting import eventually


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(take_messages)


def test_who_is_too_fast_waits_and_nobody_else_does(agent: RawAgent, start_gateway: StartGateway) -> None:
    limited = rule("slowly", limits={"rate": "2/m", "per": "principal"})
    gateway = start_gateway([member(agent.port)], policy=policy(limited))
    for name, http2 in (("planner", False), ("coder", True)):
        with gateway.client(name, http2=http2) as client:
            answers = [client.post("/run", headers=CAPABILITY) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert refusal(answers[2]) == (429, "rate-limited")
        assert 20 <= int(answers[2].headers["retry-after"]) <= 30
        assert "test/slowly allows 2/m" in answers[2].json()["detail"]
        logged = gateway.handoff(reason="rate-limited", **{"from": f"{AGENTS}/{name}"})
        assert (logged["policy"], logged["rule"]) == ("test", "slowly")


def test_a_packet_that_came_too_fast_may_come_again(agent: RawAgent, start_gateway: StartGateway, certs: Path) -> None:
    limited = rule(require={"signature": True}, limits={"rate": "1/s", "per": "principal"})
    gateway = start_gateway([member(agent.port)], policy=policy(limited))
    with gateway.client() as client:
        request = signed(client, svid_auth(certs))
        while client.send(request).status_code == 200:
            request = signed(client, svid_auth(certs))
        # Had its refusal used the signature up, the answer would be 409 from now on.
        eventually(lambda: client.send(request).status_code == 200)


def test_a_shadow_policy_refuses_nobody_and_is_told_of(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    enforce(gateway, policy(rule("no-planners", "deny", callers="planner"), name="trial", mode="shadow"))
    with gateway.client() as client, gateway.client("coder") as coder:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
        assert coder.post("/run", headers=CAPABILITY).status_code == 200
    told = "refuse: trial/no-planners"
    logged = gateway.handoff(**{"from": f"{AGENTS}/planner"})
    assert (logged["outcome"], logged["rule"], logged["shadow"]) == ("completed", "agents", told)
    assert "shadow" not in gateway.handoff(**{"from": f"{AGENTS}/coder"})
    counted = f'phoenixflight_shadow_changes_total{{capability="code.execute",change="{told}"}} 1.0'
    assert counted in gateway.admin("/metrics").text
