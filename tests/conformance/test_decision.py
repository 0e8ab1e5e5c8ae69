"""Verdicts as callers meet them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conformance.beside import counted
from tests.conformance.test_http1 import answer_each
from tests.conformance.test_revocation import EventSource, last_words, listening
from tests.conformance.trust import enforce, policy, rule
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, free_port, member
from tests.waiting import eventually


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


def test_a_denied_packet_never_reaches_an_agent(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(agent.port)])
    with gateway.client("mallory") as client:
        response = client.post("/run", headers=CAPABILITY)
    assert response.status_code == 403
    problem = response.json()
    assert problem["type"] == "urn:phoenixflight:denied-by-policy"
    assert problem["policy"] == "test"
    assert problem["flight_id"]
    assert agent.received == []
    logged = gateway.handoff(outcome="refused")
    assert (logged["policy"], logged["rule"]) == ("test", "quarantined")


@pytest.mark.parametrize(
    ("headers", "status", "reason", "detail"),
    [
        ({}, 400, "malformed-packet", "flight-capability is missing"),
        ({"flight-capability": "code.execute,,"}, 400, "malformed-packet", "character 13"),
        ({"flight-capability": '"quoted"'}, 400, "malformed-packet", "not a token"),
        ({"flight-capability": "a;min-trust=2"}, 400, "malformed-packet", "min-trust"),
        ({**CAPABILITY, "flight-conversation": "bare"}, 400, "malformed-packet", "flight-conversation"),
        ({**CAPABILITY, "flight-timeout": "soon"}, 400, "malformed-packet", "flight-timeout"),
        ({**CAPABILITY, "flight-budget": "tokens="}, 400, "malformed-packet", "flight-budget"),
        ({"flight-capability": "code.fly"}, 404, "capability-unknown", "code.fly"),
        ({"flight-capability": "code.execute;min-trust=0.99"}, 503, "no-eligible-agent", "trust"),
        ({"flight-capability": "code.rest"}, 503, "no-eligible-agent", "not ready"),
    ],
)
def test_refusals_say_what_to_change(
    agent: RawAgent, start_gateway: StartGateway, headers: dict[str, str], status: int, reason: str, detail: str
) -> None:
    gateway = start_gateway(
        [
            member(agent.port, trust=0.9),
            member(agent.port, "resting", capabilities=["code.rest"], state="draining"),
        ]
    )
    with gateway.client(http2=True) as client:
        response = client.post("/run", headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:phoenixflight:{reason}"
    assert detail in problem["detail"]
    assert ("retry-after" in response.headers) == (status == 503)
    assert agent.received == []


def test_a_conversation_stays_with_its_agent_and_others_spread(raw_agent, start_gateway: StartGateway) -> None:
    agents = [raw_agent(answer_each) for _ in range(4)]
    gateway = start_gateway([member(agent.port, f"executor-{at}") for at, agent in enumerate(agents)])
    owners: dict[int, set[str]] = {}
    with gateway.client(http2=True) as client:
        for number in list(range(40)) * 2:
            response = client.post("/run", headers={**CAPABILITY, "flight-conversation": f'"c{number}"'})
            owners.setdefault(number, set()).add(response.headers["flight-agent"])
    assert all(len(found) == 1 for found in owners.values())
    assert len(set.union(*owners.values())) == 4


def test_an_agent_that_cannot_be_reached_is_passed_over(agent: RawAgent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(free_port(), "gone"), member(agent.port, "there")])
    with gateway.client() as client:
        answers = [
            client.post("/run", headers={**CAPABILITY, "flight-conversation": f'"c{number}"'}) for number in range(20)
        ]
    assert {each.status_code for each in answers} == {200}
    assert {each.headers["flight-agent"] for each in answers} == {'"there"'}
    assert "2" in {each.headers.get("flight-attempts") for each in answers}


def test_flight_timeout_ends_in_504(raw_agent, start_gateway: StartGateway) -> None:
    def silent(agent, connection) -> None:  # type: ignore[no-untyped-def]
        agent.read_head(connection)
        connection.recv(1)

    agent = raw_agent(silent)
    gateway = start_gateway([member(agent.port)])
    with gateway.client() as client:
        response = client.post("/run", headers={**CAPABILITY, "flight-timeout": "300"})
    assert response.status_code == 504
    assert response.json()["type"] == "urn:phoenixflight:deadline-exceeded"
    (line,) = [line for line in agent.received[0].split(b"\r\n") if line.startswith(b"flight-timeout: ")]
    assert 0 < int(line.partition(b": ")[2]) <= 300


def test_a_refusal_tells_nothing_of_what_is_not_its_callers(agent: RawAgent, start_gateway: StartGateway) -> None:
    members = [member(agent.port), member(agent.port, "vault", capabilities=["secret.read"], state="draining")]
    rules = rule("planners", callers="planner"), rule("coders-secrets", callers="coder", to={"minTrust": 0.9})
    gateway = start_gateway(members, policy=policy(*rules))
    told = []
    for capability in ("code.execute", "secret.read", "no.such"):
        with gateway.client("mallory") as client:
            response = client.post("/run", headers={"flight-capability": capability, "flight-id": '"one"'})
        assert response.json()["type"] == "urn:phoenixflight:no-policy-allows"
        told.append(response.text.replace(capability, "CAPABILITY"))
        fields = {name for name, _ in response.headers.multi_items()}
        assert not fields & {"flight-agent", "flight-decision", "flight-attempts"}
    assert len(set(told)) == 1, "whether there is such a capability makes no difference"
    for secret in ("executor-1", "vault", str(agent.port), "planner", "coder"):
        assert secret not in told[0]


# -- failing ------------------------------------------------------------------------------------------------


def with_a_defect(gateway: RunningGateway, function: str) -> None:
    """Start the gateway again, as a program in which this function of `gateway.proxy.exchange` raises."""
    gateway.stop()
    program = f"""
import gateway.cli
import gateway.proxy.exchange

def fail(*_, **__):
    raise LookupError("a defect of ours")

gateway.proxy.exchange.{function} = fail
gateway.cli.main()
"""
    with (gateway.folder / "stderr.log").open("ab") as errors:
        gateway.process = subprocess.Popen(
            [sys.executable, "-c", program, "run", "--config", str(gateway.folder / "gateway.yaml")],
            stdout=errors,
            stderr=errors,
        )
    eventually(gateway.ready, 40)


def test_an_error_in_deciding_is_a_refusal_that_is_counted_and_nothing_is_forwarded(
    agent: RawAgent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(agent.port)])
    with_a_defect(gateway, "decide")
    for http2 in (False, True):
        with gateway.client(http2=http2) as client:
            response = client.post("/run", headers=CAPABILITY, content=b"job")
            assert response.status_code == 500
            assert response.json()["type"] == "urn:phoenixflight:internal"
            assert "defect of ours" not in response.text
            grpc = client.post("/run", headers={**CAPABILITY, "content-type": "application/grpc"})
            assert (grpc.status_code, grpc.headers["grpc-status"]) == (200, "13")
    assert agent.connections == 0
    assert counted(gateway, "phoenixflight_defects_total") == 4
    eventually(lambda: len(gateway.handoffs()) == 4)
    assert {(each["outcome"], each["reason"]) for each in gateway.handoffs()} == {("refused", "internal")}
    assert "LookupError: a defect of ours" in gateway.log()


def test_a_stream_that_cannot_be_judged_again_ends(raw_agent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(EventSource(raw_agent).port)])
    with_a_defect(gateway, "judge")
    with listening(gateway.client()) as one, listening(gateway.client(http2=True)) as other:
        enforce(gateway, policy(rule("others")))
        assert [last_words(one), last_words(other)] == ["internal", "internal"]
    assert counted(gateway, "phoenixflight_defects_total") == 2
    gateway.handoff(outcome="revoked", reason="internal")
