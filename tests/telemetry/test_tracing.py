"""The trace context that an agent gets, and which handoffs become spans."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import format_span_id, format_trace_id

from gateway.decision import Snapshot, decide
from gateway.handoff import Attempt, Handoff, Outcome
from gateway.identity import Principal
from gateway.messages import RequestHead
from gateway.telemetry.spans import Ended, asked_last, spans, spans_of
from gateway.telemetry.spec import TracingSpec
from gateway.telemetry.tracing import MAX_PARENTS, Tracing, renew
from gateway.verdict import Decided
from tests.policy.worlds import ALLOW, NOON, PLANNER, policy, snapshot

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RESOURCE = Resource({})
FORCE = snapshot(policy("p", ["*"], ALLOW))


class Kept:
    """Takes what is to be exported."""

    def __init__(self) -> None:
        self.ended: list[Ended] = []
        self.add = self.ended.append


def tracing(chance: float = 0.5, **spec: object) -> tuple[Tracing, Kept]:
    kept = Kept()
    made = TracingSpec.model_validate({"otlpEndpoint": "http://localhost:4318", "sampleRatio": 0, **spec})
    return Tracing(made, kept, chance=lambda: chance), kept  # type: ignore[arg-type]


def decided(traceparent: str = "", flight_id: str = "id-1", force: Snapshot = FORCE) -> Decided:
    head = RequestHead(
        b"POST",
        b"https",
        b"gateway",
        b"/run?secret",
        [(b"flight-capability", b"code.execute"), (b"flight-id", b'"%s"' % flight_id.encode())]
        + ([(b"traceparent", traceparent.encode())] if traceparent else []),
    )
    caller = Principal(PLANNER)
    return Decided(head, caller, decide(head, caller, force, NOON, lambda _: 7), force.revision, NOON)


def handoff(outcome: Outcome = Outcome.COMPLETED, **more: object) -> Handoff:
    fields = {"trace_id": TRACE, "flight_id": "id-1", "duration_ms": 5.0, **more}
    return Handoff(datetime.fromtimestamp(NOON, UTC), outcome, **fields)  # type: ignore[arg-type]


def parts(header: bytes) -> tuple[str, str, str]:
    version, trace_id, span_id, flags = header.decode().split("-")
    assert version == "00"
    assert len(span_id) == 16
    return trace_id, span_id, flags


def test_without_a_collector_a_context_goes_on_as_it_came() -> None:
    came = f"00-{TRACE}-{SPAN}-01"
    begun = Tracing().begin(decided(came))
    assert begun.header.decode() == came
    assert begun.trace_id == TRACE
    fields = [(b"traceparent", begun.header)]
    renew(begun, fields, 2)
    assert fields == [(b"traceparent", begun.header)]


@pytest.mark.parametrize(("flags", "onward"), [("01", "01"), ("00", "00"), ("03", "03"), ("f0", "00")])
def test_whether_it_is_sampled_is_the_caller_s_to_say(flags: str, onward: str) -> None:
    made, kept = tracing(sampleRatio=1)
    one = decided(f"00-{TRACE}-{SPAN}-{flags}")
    begun = made.begin(one)
    trace_id, span_id, told = parts(begun.header)
    assert (trace_id, told) == (TRACE, onward)
    assert span_id != SPAN
    made.ended(handoff(), one, begun)
    assert len(kept.ended) == int(onward[1]) % 2


@pytest.mark.parametrize("broken", ["", "00-nonsense", f"00-{TRACE}-{SPAN}-01-more", f"ff-{TRACE}-{SPAN}-01"])
@pytest.mark.parametrize(("chance", "flags"), [(0.2, "01"), (0.3, "00")])
def test_a_trace_that_begins_here_is_sampled_by_chance(broken: str, chance: float, flags: str) -> None:
    made, _ = tracing(chance, sampleRatio=0.25)
    begun = made.begin(decided(broken))
    trace_id, _, told = parts(begun.header)
    assert trace_id not in (TRACE, "0" * 32)
    assert told == flags
    assert begun.parent == b""


def test_each_attempt_has_an_id_of_its_own_and_a_span_with_it() -> None:
    made, kept = tracing()
    one = decided(f"00-{TRACE}-{SPAN}-01")
    begun = made.begin(one)
    fields = [(b"x", b"y"), (b"traceparent", begun.header)]
    renew(begun, fields, 2)
    failed = (Attempt("executor-1", "unreachable", 1.0, 2.0),)
    made.ended(handoff(failed=failed, agent="executor-2", attempts=2, asked_ms=3.0, sent_ms=3.5), one, begun)
    by_name = [(span.name, format_span_id(span.context.span_id)) for span in spans(kept.ended[0], RESOURCE)]
    assert by_name[2] == ("attempt", parts(begun.header)[1])
    assert by_name[3] == ("attempt", parts(fields[1][1])[1])
    assert len({span_id for _, span_id in by_name}) == 4 == spans_of(kept.ended[0].handoff)


def test_a_retry_that_found_nobody_is_no_attempt() -> None:
    failed = (Attempt("executor-1", "unreachable", 1.0, 2.0),)
    assert not asked_last(handoff(Outcome.FAILED, failed=failed, asked_ms=1.0))
    assert not asked_last(handoff(Outcome.REFUSED))
    assert asked_last(handoff(asked_ms=1.0))


@pytest.mark.parametrize(
    ("ended", "kept"),
    [
        (handoff(), False),
        (handoff(Outcome.CANCELLED), False),
        (handoff(Outcome.REFUSED, reason="denied-by-policy"), True),
        (handoff(Outcome.FAILED, reason="upstream-reset"), True),
        (handoff(Outcome.REVOKED, reason="denied-by-policy"), True),
        (handoff(duration_ms=1500.0), True),
        (handoff(duration_ms=1500.0, answered_ms=1200.0), True),
        (handoff(duration_ms=3_600_000.0, answered_ms=20.0), False),  # a stream that lives long
    ],
)
def test_what_went_wrong_or_took_long_is_kept_though_it_was_not_sampled(ended: Handoff, kept: bool) -> None:
    made, exported = tracing(slow="1s")
    one = decided()
    made.ended(ended, one, made.begin(one))
    assert bool(exported.ended) is kept


def test_a_flood_of_one_kind_is_bounded_and_counted_and_leaves_room_for_the_others() -> None:
    made, kept = tracing(keptPerSecond=5)
    one = decided()
    begun = made.begin(one)
    for _ in range(1000):
        made.ended(handoff(Outcome.REFUSED, reason="denied-by-policy"), one, begun)
    refused = len(kept.ended)
    assert 5 <= refused < 100
    assert made.not_kept == 2 * (1000 - refused)
    made.ended(handoff(Outcome.FAILED, reason="upstream-reset"), one, begun)
    assert len(kept.ended) == refused + 1


def test_a_packet_is_linked_to_the_handoff_that_it_was_born_in_while_that_is_known() -> None:
    made, kept = tracing()
    for number in range(MAX_PARENTS + 1):
        made.begin(decided(f"00-{TRACE}-{SPAN}-01", f"id-{number}"))
    one = decided(f"00-{TRACE}-{SPAN}-01", "child")
    begun = made.begin(one)
    made.ended(handoff(parent=f"id-{MAX_PARENTS}"), one, begun)
    made.ended(handoff(parent="id-0"), one, begun)  # the oldest is forgotten
    made.ended(handoff(parent="unknown"), one, begun)
    known, forgotten, unknown = (next(spans(each, RESOURCE)) for each in kept.ended)
    assert len(known.links) == 1
    assert format_trace_id(known.links[0].context.trace_id) == TRACE
    assert not forgotten.links
    assert not unknown.links


def test_no_span_says_what_a_caller_sent() -> None:
    made, kept = tracing()
    head = decided(f"00-{TRACE}-{SPAN}-01").head
    secrets = (b"authorization", b"cookie", b"signature", b"flight-credential", b"x-api-key")
    spoken = RequestHead(
        head.method, head.scheme, head.authority, head.path, [*head.fields, *((name, b"secret") for name in secrets)]
    )
    caller = Principal(PLANNER)
    verdict = decide(spoken, caller, FORCE, NOON, lambda _: 7)
    one = Decided(spoken, caller, verdict, FORCE.revision, NOON)
    made.ended(handoff(Outcome.REFUSED, path="/run", reason="signature-invalid"), one, made.begin(one))
    assert "secret" not in repr(kept.ended[0])
    assert "secret" not in "".join(span.to_json() for span in spans(kept.ended[0], RESOURCE))
