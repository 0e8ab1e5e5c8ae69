"""What is revoked is refused, by whatever it is named, until its time is over."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256

import pytest

from gateway.authority import Credential, Entry, Kind, Revocations
from gateway.authority.revocations import entry
from gateway.decision import EMPTY, Refuse, decide
from gateway.identity import Principal, SpiffeId
from gateway.messages import RequestHead
from gateway.packet import Capabilities, FlightPacket
from gateway.refusal import Reason

NOW = 1_800_000_000.0
PLANNER, CODER, USER = (SpiffeId(f"spiffe://mesh.local/ns/agents/sa/{name}") for name in ("planner", "coder", "user"))
CERTIFICATE = b"certificate"
CALLER = Principal(PLANNER, certificate=CERTIFICATE)
THUMBPRINT = urlsafe_b64encode(sha256(CERTIFICATE).digest()).rstrip(b"=").decode()
PACKET = FlightPacket("p-1", Capabilities(("code.execute",)), b"c-1", conversation="c-1", task="t-1")
HELD = Credential(
    id="j-2",
    parent="j-1",
    root="p-0",
    conversation="c-0",
    subject=USER,
    lineage=(USER, CODER),
    audience=PLANNER,
    thumbprint=THUMBPRINT,
    capabilities=(),
    budget={},
    expires=NOW + 60,
    key="k-1",
)

NAMED = [
    (Kind.PRINCIPAL, PLANNER),
    (Kind.PRINCIPAL, USER),
    (Kind.PRINCIPAL, CODER),
    (Kind.KEY, THUMBPRINT),
    (Kind.KEY, "k-1"),
    (Kind.KEY, "sig-1"),
    (Kind.CREDENTIAL, "j-1"),
    (Kind.CREDENTIAL, "j-2"),
    (Kind.CREDENTIAL, "j-3"),
    (Kind.CREDENTIAL, "p-0"),
    (Kind.CONVERSATION, "c-1"),
    (Kind.CONVERSATION, "c-0"),
    (Kind.TASK, "t-1"),
    (Kind.TASK, "p-1"),
    (Kind.TASK, "p-0"),
]


def asked(*entries: Entry, now: float = NOW) -> Reason | None:
    found = Revocations(entries).refusal_of(CALLER, now, PACKET, HELD, given="j-3", keyid="sig-1")
    return found.reason if found is not None else None


@pytest.mark.parametrize(("kind", "value"), NAMED)
def test_whatever_a_request_is_part_of_stops_it_until_its_time_is_over(kind: Kind, value: str) -> None:
    order = entry(kind, value, NOW + 10)
    assert asked(order) is Reason.REVOKED
    assert asked(order, now=NOW + 10) is None
    for other in set(Kind) - {kind}:
        if (other, value) not in NAMED:
            assert asked(Entry(other, value)) is None


def test_what_is_not_there_is_not_taken_for_what_is_revoked() -> None:
    bare = FlightPacket(PACKET.id, PACKET.capabilities, PACKET.affinity)
    for kind in Kind:
        assert Revocations([Entry(kind, "another")]).refusal_of(Principal(PLANNER), NOW, bare) is None


def test_the_caller_is_told_what_kind_of_thing_is_revoked_and_not_by_whom_or_why() -> None:
    order = entry(Kind.CONVERSATION, "c-1", why="a secret", who="alice")
    refusal = Revocations([order]).refusal_of(CALLER, NOW, PACKET)
    assert refusal is not None
    assert "conversation" in refusal.detail
    assert "secret" not in refusal.detail
    assert "alice" not in refusal.detail


def test_of_two_entries_about_one_thing_the_longer_one_counts() -> None:
    short, long = Entry(Kind.TASK, "t-1", NOW - 1), Entry(Kind.TASK, "t-1", NOW + 1)
    assert asked(short, long) is asked(long, short) is Reason.REVOKED


def test_a_fingerprint_may_be_written_as_openssl_prints_it() -> None:
    hexadecimal = sha256(CERTIFICATE).hexdigest().upper()
    pairs = ":".join(hexadecimal[at : at + 2] for at in range(0, 64, 2))
    assert entry(Kind.KEY, pairs).value == entry(Kind.KEY, hexadecimal).value == THUMBPRINT


@pytest.mark.parametrize(
    ("kind", "value"), [(Kind.PRINCIPAL, "planner"), (Kind.TASK, ""), (Kind.TASK, "a\nb"), (Kind.TASK, "x" * 2049)]
)
def test_what_cannot_be_meant_is_refused(kind: Kind, value: str) -> None:
    with pytest.raises(ValueError, match=r"expected|SPIFFE|spiffe"):
        entry(kind, value)


def test_a_decision_asks_for_revocations_before_policy() -> None:
    head = RequestHead(b"POST", b"https", b"gateway", b"/run", [(b"flight-capability", b"code.execute")])
    snapshot = EMPTY.with_revocations(Revocations([entry(Kind.CREDENTIAL, "j-1")]))
    verdict = decide(head, CALLER, snapshot, NOW, lambda _: 0, held=HELD)
    assert isinstance(verdict, Refuse)
    assert verdict.refusal.reason is Reason.REVOKED
    other = decide(head, CALLER, snapshot, NOW, lambda _: 0)
    assert isinstance(other, Refuse)
    assert other.refusal.reason is Reason.NO_POLICY_ALLOWS
