"""What waits, within bounds, and what somebody has approved for a conversation."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.approvals import Answered, ApprovalsSpec, Decision, Desk, Outcome, Scope, Standing, Waiting
from gateway.identity import PrincipalPattern
from gateway.policy import Ask

AT = datetime(2026, 11, 30, tzinfo=UTC)
ASKS = Ask("payments", "costly", 60.0)
PEOPLE = "spiffe://mesh.local/ns/people/sa"
YES = Decision(approve=True, by=f"{PEOPLE}/ann", scope=Scope.CONVERSATION)


def waiting(id_: str, caller: str = "spiffe://mesh.local/a", conversation: str = "", signer: str = "") -> Waiting:
    return Waiting(id_, AT, AT, "payments", "costly", caller, "pay", "purse", ("pay",), "f", "", signer, conversation)


def test_what_waits_is_bounded_and_one_caller_does_not_take_it_all() -> None:
    desk = Desk(ApprovalsSpec(max_waiting=3, max_waiting_per_caller=2))
    told: list[Answered] = []

    def ask(id_: str, caller: str) -> Outcome | None:
        known = desk.ask(ASKS, waiting(id_, caller), 0.0, told.append)
        return known.outcome if known is not None else None

    assert [ask("1", "a"), ask("2", "a"), ask("3", "a"), ask("4", "b"), ask("5", "c")] == [
        None,
        None,
        Outcome.FULL,
        None,
        Outcome.FULL,
    ]
    desk.give_up("1", Outcome.TIMED_OUT, 60.0)
    assert [(each.id, each.outcome, each.waited_s) for each in told] == [("1", Outcome.TIMED_OUT, 60.0)]
    assert ask("6", "a") is None
    assert [each.id for each in desk.waiting] == ["2", "4", "6"]
    assert desk.decide("1", YES, 61.0) is Standing.UNKNOWN, "it is answered once"


def test_an_approval_for_a_conversation_ends_with_its_time_and_with_its_approver() -> None:
    desk = Desk(ApprovalsSpec.model_validate({"remember": "100s"}))
    told: list[Answered] = []

    def outcome(ask: Ask, now: float, **what: str) -> Outcome | None:
        known = desk.ask(ask, waiting(f"{now}", **what), now, told.append)
        return known.outcome if known is not None else None

    assert outcome(ASKS, 0.0, conversation="c") is None
    assert desk.decide("0.0", YES, 1.0) is Standing.DONE
    assert outcome(ASKS, 100.0, conversation="c") is Outcome.REMEMBERED
    assert outcome(ASKS, 50.0, conversation="d") is None
    assert outcome(ASKS, 51.0, conversation="c", caller="spiffe://mesh.local/b") is None
    assert outcome(ASKS, 52.0, conversation="c", signer="spiffe://mesh.local/b") is None
    assert outcome(ASKS, 101.0, conversation="c") is None
    assert desk.decide("101.0", YES, 102.0) is Standing.DONE
    others = Ask("payments", "costly", 60.0, "", (PrincipalPattern(f"{PEOPLE}/ben"),))
    assert outcome(others, 103.0, conversation="c") is None, "Ann is no approver any more"


def test_nobody_answers_for_what_they_sent_or_signed() -> None:
    desk = Desk(ApprovalsSpec())
    told: list[Answered] = []
    desk.ask(ASKS, waiting("1", caller=YES.by), 0.0, told.append)
    desk.ask(ASKS, waiting("2", signer=YES.by), 0.0, told.append)
    assert {desk.decide(id_, YES, 1.0) for id_ in ("1", "2")} == {Standing.OWN}
    assert told == []
