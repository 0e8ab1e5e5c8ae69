"""A recorded packet is decided again as it was, and nothing of its sender's secrets is kept."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given

from gateway.decision import Evidence, Snapshot, decide
from gateway.identity import Principal
from gateway.messages import RequestHead
from gateway.packet import fields as names
from gateway.policy.model import TrustPolicy
from gateway.recorded import Flip, Recorded
from gateway.recording import again, flip, record, redecide
from gateway.routes import place
from gateway.verdict import Decided
from tests.policy.worlds import AGENTS, ALLOW, DENY, NOON, PLANNER, Ask, asks, documents, policy, snapshot

SENDER = Principal(PLANNER)
SECRET_FIELDS = [
    (b"authorization", b"Bearer secret"),
    (b"cookie", b"session=secret"),
    (b"flight-credential", b"secret.secret.secret"),
    (b"flight-context", b'ref="https://store/secret"'),
    (b"flight-something", b"secret"),
    (b"signature", b"flight=:c2VjcmV0:"),
    (b"signature-input", b'flight=("@method");nonce="secret"'),
    (b"content-digest", b"sha-256=:c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=:"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
    (b"x-api-key", b"secret"),
]


def taken(
    head: RequestHead, force: Snapshot, evidence: Evidence | None = None, caller: Principal | None = SENDER
) -> Decided:
    verdict = decide(head, caller, force, NOON, lambda _: 7, assume=evidence)
    return Decided(head, caller, verdict, force.revision, NOON)


def written(decided: Decided) -> Recorded:
    return msgspec.json.decode(msgspec.json.encode(record(decided)), type=Recorded)


@given(documents, documents, asks)
def test_a_recorded_packet_is_decided_as_the_packet_itself(
    policies: list[TrustPolicy], others: list[TrustPolicy], ask: Ask
) -> None:
    force, candidate = snapshot(*policies), snapshot(*others)
    kept = written(taken(ask.head, force, ask.evidence, Principal(ask.caller)))
    assert kept.judged
    assert redecide(kept, force) == kept
    assert redecide(kept, candidate) == written(taken(ask.head, candidate, ask.evidence, Principal(ask.caller)))


@pytest.mark.parametrize(
    "extra",
    [
        [],
        [(b"flight-id", b'"a\\"b"'), (b"flight-budget", b"hops=3"), (b"flight-budget", b"tokens=5")],
        [(b"mcp-session-id", b"\xff\x00")],
        [(b"flight-conversation", b'"c-1"'), (b"flight-task", b'"t"')],
    ],
)
def test_a_packet_keeps_its_id_its_budget_and_its_agent(extra: list[tuple[bytes, bytes]]) -> None:
    budget = "packet.id != '' && (packet.budget.size() == 0 || packet.budget.tokens == 5)"
    force = snapshot(policy("p", ["*"], {**ALLOW, "when": budget}))
    head = RequestHead(b"POST", b"https", b"code.execute.flight.internal:8443", b"/r\xe9n?x", extra)
    decided = taken(head, force)
    kept = written(decided)
    assert kept.allow
    assert decided.verdict.packet is not None
    assert kept.flight_id == decided.verdict.packet.id
    assert redecide(kept, force) == kept


def test_a_packet_that_was_bound_for_an_agent_is_decided_so_again() -> None:
    force = snapshot(policy("p", ["*"], ALLOW))
    agents = [replace(agent, host=f"10.0.0.{number}") for number, agent in enumerate(AGENTS, start=1)]
    force = force.with_agents(tuple(agents))
    head = RequestHead(b"POST", b"https", b"code.execute.flight.internal", b"/run", [])
    bound = {place(agent.host, agent.port): agent.name for agent in agents if "code.execute" in agent.capabilities}
    assert len(bound) > 1
    for destination, name in bound.items():
        verdict = decide(head, SENDER, force, NOON, lambda _: 7, destination=destination)
        kept = written(Decided(head, SENDER, verdict, force.revision, NOON, destination))
        assert kept.agent == name
        assert redecide(kept, force) == kept
        without = force.with_agents(tuple(agent for agent in agents if agent.name != name))
        assert redecide(kept, without).reason == "destination-refused"


def test_nothing_secret_is_recorded() -> None:
    head = RequestHead(
        b"POST", b"https", b"gateway", b"/run?token=secret", [(names.CAPABILITY, b"code.execute"), *SECRET_FIELDS]
    )
    covered = frozenset({b"@method", names.CREDENTIAL})
    force = snapshot(policy("p", ["*"], ALLOW))
    text = msgspec.json.encode(record(taken(head, force, Evidence(PLANNER, covered, digest=True))))
    for secret in (b"secret", b"c2VjcmV0", b"0af7651916cd43dd8448eb211c80319c"):
        assert secret not in text
    kept = msgspec.json.decode(text, type=Recorded)
    assert (kept.path, kept.signer, kept.covered, kept.digest) == (
        "/run",
        PLANNER,
        ("@method", "flight-credential"),
        True,
    )


def test_what_policy_was_not_asked_about_is_told_apart() -> None:
    force = snapshot(policy("p", ["*"], ALLOW))
    malformed = RequestHead(b"POST", b"https", b"gateway", b"/", [])
    unproven = RequestHead(
        b"POST", b"https", b"gateway", b"/", [(names.CAPABILITY, b"code.execute"), (b"signature", b"flight=:AA==:")]
    )
    required = snapshot(policy("p", ["*"], {**ALLOW, "require": {"signature": True}}))
    assert not written(taken(malformed, force)).judged
    assert not written(taken(Ask().head, force, caller=None)).judged
    broken = written(taken(unproven, force))
    assert (broken.reason, broken.judged) == ("signature-invalid", False)
    unsigned = written(taken(Ask().head, required))
    assert (unsigned.reason, unsigned.judged) == ("signature-invalid", True)


def test_only_what_sender_or_agents_notice_is_a_flip() -> None:
    allowed = written(taken(Ask().head, snapshot(policy("p", ["*"], ALLOW))))
    renamed = written(taken(Ask().head, snapshot(policy("q", ["*"], ALLOW))))
    denied = written(taken(Ask().head, snapshot(policy("p", ["*"], DENY))))
    unallowed = written(taken(Ask().head, snapshot()))
    trusted = {"to": {"minTrust": 0.5}}
    fetch = Ask(("web.fetch",)).head
    among_trusted = written(taken(fetch, snapshot(policy("p", ["*"], {**ALLOW, **trusted}))))
    among_others = written(taken(fetch, snapshot(policy("p", ["*"], {**DENY, **trusted}, ALLOW))))
    assert flip(allowed, renamed) is None
    assert flip(denied, unallowed) is None
    assert flip(allowed, denied) is Flip.NOW_REFUSED
    assert flip(unallowed, allowed) is Flip.NOW_ALLOWED
    assert (among_trusted.agent, among_others.agent) == ("beta", "gamma")
    assert flip(among_trusted, among_others) is Flip.OTHER_AGENT


@pytest.mark.parametrize(
    "broken", [{"caller": "planner"}, {"path": "/\u20ac"}, {"fields": [("flight-task", "\u20ac")]}]
)
def test_a_record_that_nobody_recorded_is_an_error(broken: dict[str, object]) -> None:
    kept = written(taken(Ask().head, snapshot(policy("p", ["*"], ALLOW))))
    with pytest.raises(ValueError, match=r"SPIFFE|latin-1"):
        again(msgspec.structs.replace(kept, **broken))
