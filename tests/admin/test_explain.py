"""The admin port tells why a packet fared as it did, and what is in force."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest

from gateway.agent import FlightAuth
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, POLICY, RunningGateway, StartGateway, eventually, free_port, member, write_policy

PLANNER = "spiffe://mesh.local/ns/agents/sa/planner"
RULE = {
    "name": "reviewers",
    "effect": "allow",
    "from": ["spiffe://mesh.local/ns/agents/sa/reviewer"],
    "to": {"minTrust": 0.5},
    "when": "packet.hops > 1",
    "agentWhen": "agent.trust > 0.6",
    "require": {"signature": True, "signers": ["spiffe://mesh.local/ns/agents/**"]},
    "grant": {"capabilities": ["tool.*"], "budget": {"tokens": 20}, "ttl": "2m"},
    "limits": {"rate": "50/s", "per": "conversation"},
    "deliver": {"context": "inline"},
}


@pytest.fixture
def gateway(raw_agent, start_gateway: StartGateway) -> RunningGateway:
    return start_gateway([member(raw_agent(answer_each).port)])


def ask(gateway: RunningGateway, *query: tuple[str, str]) -> tuple[int, str]:
    answer = gateway.admin(f"/explain?{urlencode(query)}")
    return answer.status_code, answer.text


def test_a_recent_packet_is_explained_by_its_id_under_what_is_in_force_now(gateway: RunningGateway) -> None:
    with gateway.client() as client:
        answer = client.post("/run?token=secret", headers={**CAPABILITY, "authorization": "secret"})
    flight_id = answer.headers["flight-id"].strip('"')
    path = f"/explain?id={flight_id}"
    told = gateway.admin(path).json()
    assert told["recorded"]["agent"] == told["explanation"]["agent"] == "executor-1"
    assert told["explanation"]["flight_id"] == flight_id
    assert [rule["verdict"] for rule in told["explanation"]["rules"]] == ["allows", "the caller is not in 'from'"]
    assert "secret" not in gateway.admin(path).text
    stop = {**POLICY, "spec": {"capabilities": ["*"], "rules": [POLICY["spec"]["rules"][1] | {"from": [PLANNER]}]}}
    before = gateway.revision()
    write_policy(gateway.folder, "stop", {**stop, "metadata": {"name": "stop"}})
    eventually(lambda: gateway.revision() != before)
    told = gateway.admin(path).json()
    assert told["recorded"]["allow"]
    assert told["recorded"]["revision"] == before
    assert (told["explanation"]["allow"], told["explanation"]["policy"]) == (False, "stop")


def test_a_packet_that_only_the_flight_recorder_knows_is_explained_with_both_revisions(
    raw_agent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(raw_agent(answer_each).port)], recorder={"folder": "recorder"})
    with gateway.client() as client:
        client.post("/run?token=secret", headers={**CAPABILITY, "flight-id": '"old"'})
    decided = gateway.revision()
    eventually(
        lambda: b'"flight_id":"old"' in b"".join(each.read_bytes() for each in gateway.folder.glob("recorder/*/seg*"))
    )
    assert gateway.stop() == 0
    gateway.start_again()
    assert "revision" not in gateway.admin("/explain?id=old").json()
    rules = [POLICY["spec"]["rules"][1] | {"from": [PLANNER]}]
    write_policy(
        gateway.folder,
        "stop",
        {**POLICY, "metadata": {"name": "stop"}, "spec": {"capabilities": ["*"], "rules": rules}},
    )
    eventually(lambda: gateway.revision() != decided)
    told = gateway.admin("/explain?id=old").json()
    assert (told["recorded"]["revision"], told["revision"]) == (decided, gateway.revision())
    assert told["recorded"]["allow"]
    assert (told["explanation"]["allow"], told["explanation"]["policy"]) == (False, "stop")
    none = gateway.admin("/explain?id=none")
    assert (none.status_code, none.text) == (
        404,
        "no packet with this id among the last 1,000, nor in the flight recorder\n",
    )


def test_a_packet_refused_before_policy_was_asked_has_no_rules_to_explain(gateway: RunningGateway) -> None:
    with gateway.client() as client:
        client.post("/run", headers={**CAPABILITY, "flight-id": '"x"', "signature": "flight=:AA==:"})
    told = gateway.admin("/explain?id=x").json()
    assert told["recorded"]["reason"] == "signature-invalid"
    assert "explanation" not in told


def test_a_hypothetical_packet_is_explained(gateway: RunningGateway) -> None:
    code, text = ask(gateway, ("from", PLANNER), ("header", "flight-capability: code.execute"), ("method", "GET"))
    assert (code, '"allow":true' in text) == (200, True)
    code, text = ask(gateway, ("from", "spiffe://mesh.local/x"), ("header", "flight-capability: code.execute"))
    assert (code, '"reason":"no-policy-allows"' in text) == (200, True)


def test_what_cannot_be_explained_is_told(gateway: RunningGateway) -> None:
    for query, code, told in (
        ([("id", "none")], 404, "no packet with this id among the last 1,000"),
        ([], 400, "from is missing; ask for a packet that was: ?id="),
        ([("from", "planner")], 400, "'planner' is not a SPIFFE id"),
        ([("from", PLANNER), ("header", "flight-capability")], 400, "expected 'name: value'"),
        ([("from", PLANNER), ("singer", PLANNER)], 400, "unknown: 'singer'"),
        ([("from", PLANNER), ("id", "x")], 400, "unknown: 'id'"),
    ):
        came, text = ask(gateway, *query)
        assert (came, told in text) == (code, True), text


def test_the_snapshot_shows_whole_rules(gateway: RunningGateway) -> None:
    before = gateway.revision()
    document = {"metadata": {"name": "review"}, "spec": {"mode": "shadow", "capabilities": ["code.*"], "rules": [RULE]}}
    write_policy(gateway.folder, "review", {**POLICY, **document})
    eventually(lambda: gateway.revision() != before)
    (shown,) = [each for each in gateway.admin("/snapshot").json()["policies"] if each["name"] == "review"]
    assert shown["mode"] == "shadow"
    (rule,) = shown["rules"]
    for left_out in ("contentDigest", "context", "credential"):
        assert rule["require"].pop(left_out) is False
    assert rule.pop("approval") is rule.pop("audit") is None
    assert rule["to"].pop("labels") == {}
    assert rule == {**RULE, "grant": {**RULE["grant"], "ttl": "120s"}}


def test_status_tells_that_the_shared_replay_memory_does_not_answer(
    raw_agent, start_gateway: StartGateway, certs: Path
) -> None:
    redis = f"redis://127.0.0.1:{free_port()}/0"
    gateway = start_gateway([member(raw_agent(answer_each).port)], redis={"url": redis})
    assert gateway.admin("/status").json()["shared_replay"] == "ok"
    signing = FlightAuth.from_svid(certs / "planner.pem", certs / "planner-key.pem")
    with gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY, auth=signing).status_code == 503
    assert "refused" in gateway.admin("/status").json()["shared_replay"]
