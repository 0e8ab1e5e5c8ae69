"""A record tells all of a handoff, can be decided again, and keeps no secret."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings

from gateway.decision import Evidence, Forward
from gateway.handoff import Outcome
from gateway.policy.model import TrustPolicy
from gateway.recorder import Record
from gateway.recorder.compose import open_record, record_of, recorded
from gateway.recorder.record import MAX_ELIGIBLE
from gateway.recording import record
from gateway.routing import Agent
from tests.policy.worlds import ALLOW, PLANNER, Ask, asks, documents, policy, snapshot
from tests.recorder.making import decided, ended, made
from tests.test_recording import SECRET_FIELDS, taken


def written(text: bytes) -> Record:
    kept = msgspec.json.decode(text, type=Record)
    assert msgspec.json.encode(kept) == text
    return kept


@settings(max_examples=60)
@given(documents, asks)
def test_a_record_holds_the_decision_as_it_was_taken(policies: list[TrustPolicy], ask: Ask) -> None:
    decision = taken(ask.head, snapshot(*policies), ask.evidence)
    assert recorded(written(record_of(ended(decision), decision))) == record(decision)
    refused = ended(decision, agent="", reason="overloaded", policy="", rule="", outcome=Outcome.REFUSED)
    if isinstance(decision.verdict, Forward):
        assert recorded(written(record_of(refused, decision))) == record(decision)
        elsewhere = ended(decision, agent="other", rule="other", revision="r2")
        kept = written(record_of(elsewhere, decision))
        assert (kept.agent, kept.rule, kept.revision) == ("other", "other", "r2")
        assert recorded(kept) == record(decision)
    assert recorded(written(open_record(decision, "other"))) == record(decision)


def test_a_record_tells_the_handoff_the_eligible_agents_the_budget_and_the_digest() -> None:
    fields = [
        (b"flight-budget", b"tokens=5, hops=3"),
        (b"flight-timeout", b"900"),
        (b"content-digest", b"sha-256=:AA==:"),
    ]
    fields[2] = (b"content-digest", b"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")
    kept = made(*fields, usage="tokens=4", attempts=2, status=200)
    assert (kept.budget, kept.timeout, kept.usage) == ("tokens=5, hops=3", "900", "tokens=4")
    assert (kept.eligible, kept.eligible_count) == (("alpha", "beta", "gamma"), 3)
    assert kept.agent in kept.eligible
    assert kept.content_digest == fields[2][1].decode()
    assert (kept.attempts, kept.status, kept.policy, kept.rule) == (2, 200, "p", "r0")


def test_of_many_eligible_agents_some_are_named_and_all_are_counted() -> None:
    many = [Agent(f"a{at:03}", "127.0.0.1", 80, frozenset({"code.execute"})) for at in range(100)]
    force = snapshot(policy("p", ["*"], ALLOW), agents=many)
    decision = decided(force=force)
    kept = written(record_of(ended(decision), decision))
    assert (len(kept.eligible), kept.eligible_count) == (MAX_ELIGIBLE, 100)


def test_a_path_that_the_access_log_cuts_is_recorded_whole() -> None:
    path = b"/" + b"x" * 2000
    decision = decided(path=path + b"?secret")
    kept = written(record_of(ended(decision, path=path[:512].decode()), decision))
    assert kept.path == path.decode()
    assert recorded(kept) == record(decision)


@pytest.mark.parametrize("signer", [None, PLANNER])
def test_nothing_secret_stands_in_a_record(signer: str | None) -> None:
    secret = [field for field in SECRET_FIELDS if field[0] != b"content-digest"]
    evidence = Evidence(PLANNER, frozenset({b"@method"})) if signer else Evidence()
    decision = decided(*secret, path=b"/run?token=secret", evidence=evidence)
    for text in (record_of(ended(decision), decision), open_record(decision, "alpha")):
        for word in (b"secret", b"c2VjcmV0", b"0af7651916cd43dd8448eb211c80319c"):
            assert word not in text
