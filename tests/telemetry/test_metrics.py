"""What metrics count: bounded, by group, forgotten when idle, with exemplars, and without holding up the loop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.handoff import Attempt, Handoff, Outcome
from gateway.refusal import Reason
from gateway.telemetry.exposition import asks_for_openmetrics, in_slices
from gateway.telemetry.families import IDLE_S
from gateway.telemetry.metrics import PHASES, Metrics
from gateway.telemetry.principals import PrincipalGroup, Principals
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, StartGateway, member
from tests.fleet import numbers

WHEN = datetime(2026, 11, 24, tzinfo=UTC)
PLANNER = "spiffe://mesh.local/ns/agents/sa/planner"
MAX_SAMPLES = 75_000
"""What docs/metrics.md promises of a scrape."""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def handed(outcome: Outcome = Outcome.COMPLETED, **more: object) -> Handoff:
    fields = {"caller": PLANNER, "capability": "code.execute", "agent": "executor-1", "policy": "test", **more}
    return Handoff(time=WHEN, outcome=outcome, **fields)  # type: ignore[arg-type]


def count(metrics: Metrics, handoff: Handoff, *, sampled: bool = False) -> None:
    metrics.handoff(handoff, handoff.gateway_ms / 1000, handoff.duration_ms / 1000, sampled=sampled)


def samples(metrics: Metrics) -> int:
    return sum(not line.startswith("#") for line in metrics.exposition().decode().splitlines())


def test_conversations_and_callers_make_no_series_of_their_own() -> None:
    metrics = Metrics()
    for number in range(100_000):
        count(
            metrics,
            Handoff(
                time=WHEN,
                outcome=Outcome.COMPLETED,
                flight_id=f"f-{number}",
                conversation=f"c-{number}",
                task=f"t-{number}",
                caller=f"spiffe://mesh.local/ns/ns-{number % 20}/sa/planner-{number % 1000}",
                capability="code.execute",
                agent="executor-1",
                policy="test",
                sent_ms=1.0,
                answered_ms=2.0,
                duration_ms=3.0,
            ),
        )
    text = metrics.exposition().decode()
    assert not re.search(r"\"[cft]-\d+\"|planner", text)
    assert len(numbers(text, "phoenixflight_principal_handoffs_total")) == 20
    assert sum(numbers(text, "phoenixflight_principal_handoffs_total").values()) == 100_000
    assert samples(metrics) < 350


def test_whatever_callers_send_a_scrape_has_an_end() -> None:
    metrics = Metrics(PrincipalGroup.SERVICE_ACCOUNT)
    reasons = [reason.slug for reason in Reason]
    total = 40_000
    for number in range(total):
        reason = reasons[number // 2 % len(reasons)] if number % 2 else ""
        count(
            metrics,
            Handoff(
                time=WHEN,
                outcome=Outcome.REFUSED if reason else Outcome.COMPLETED,
                caller=f"spiffe://mesh.local/ns/agents/sa/{number}",
                capability=f"made.up-{number}",
                agent=f"executor-{number}",
                policy=f"policy-{number}",
                reason=reason,
                shadow=f"refuse: {number}",
            ),
        )
    text = metrics.exposition().decode()
    assert samples(metrics) < MAX_SAMPLES
    for name in ("handoffs", "principal_handoffs", "shadow_changes"):
        assert sum(numbers(text, f"phoenixflight_{name}_total").values()) == total
    others = 'agent="other",capability="other",outcome="completed",policy="other"'
    assert numbers(text, "phoenixflight_handoffs_total")[others] > 1
    assert numbers(text, "phoenixflight_principal_refusals_total")['principal_group="other",reason="replayed"'] > 1


def test_a_series_to_which_nothing_happens_is_gone_after_ten_minutes_and_begins_anew() -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)

    def agents() -> dict[str, float]:
        found = numbers(metrics.exposition().decode(), "phoenixflight_handoffs_total")
        return {labels.split('"')[1]: value for labels, value in found.items()}

    for _ in range(3):
        count(metrics, handed())
    count(metrics, handed(capability="code.lint", agent="linter-1"))
    assert agents() == {"executor-1": 3, "linter-1": 1}
    clock.now += IDLE_S / 2
    count(metrics, handed())
    assert agents() == {"executor-1": 4, "linter-1": 1}
    clock.now += IDLE_S / 2
    assert agents() == {"executor-1": 4}
    text = metrics.exposition().decode()
    assert 'capability="code.lint"' not in text
    assert numbers(text, "phoenixflight_handoff_duration_seconds_count") == {'capability="code.execute"': 4}
    count(metrics, handed(capability="code.lint", agent="linter-1"))
    assert agents() == {"executor-1": 4, "linter-1": 1}
    clock.now += IDLE_S
    assert agents() == {}
    assert numbers(metrics.exposition().decode(), "phoenixflight_gateway_duration_seconds_count") == {"": 6}


def test_what_was_forgotten_makes_room() -> None:
    clock = Clock()
    metrics = Metrics(PrincipalGroup.SERVICE_ACCOUNT, clock)
    for life in range(3):
        for number in range(1000):
            count(metrics, handed(caller=f"spiffe://mesh.local/sa/{life}-{number}"))
        found = numbers(metrics.exposition().decode(), "phoenixflight_principal_handoffs_total")
        assert len(found) == 1000
        assert not any('"other"' in labels for labels in found)
        clock.now += IDLE_S
        metrics.exposition()


def phases(metrics: Metrics) -> dict[str, float]:
    """The sum of each phase that was observed, in milliseconds."""
    text = metrics.exposition().decode()
    counts = numbers(text, "phoenixflight_phase_duration_seconds_count")
    sums = numbers(text, "phoenixflight_phase_duration_seconds_sum")
    return {labels.split('"')[1]: round(sums[labels] * 1000, 3) for labels, times in counts.items() if times}


def test_a_handoff_s_time_is_that_of_its_phases() -> None:
    metrics = Metrics()
    count(metrics, handed(waited_ms=4.0, gateway_ms=0.5, sent_ms=2.0, answered_ms=12.0, duration_ms=15.0))
    assert tuple(phases(metrics)) == PHASES
    assert phases(metrics) == {
        "receive": 4.0,
        "decide": 0.5,
        "connect": 1.5,
        "upstream-first-byte": 10.0,
        "relay": 3.0,
    }


def test_a_phase_that_never_was_is_not_counted_and_a_retried_packet_connects_once_more() -> None:
    metrics = Metrics()
    count(metrics, handed(Outcome.REFUSED, reason="denied-by-policy", gateway_ms=0.5, duration_ms=0.5))
    assert phases(metrics) == {"receive": 0, "decide": 0.5}
    failed = (Attempt("executor-2", "unreachable", 1.0, 7.0),)
    count(metrics, handed(failed=failed, gateway_ms=0.5, sent_ms=8.0, answered_ms=9.0, duration_ms=9.0))
    assert phases(metrics) == {"receive": 0, "decide": 1.0, "connect": 1.0, "upstream-first-byte": 1.0, "relay": 0}


def exemplars(metrics: Metrics) -> dict[str, set[str]]:
    """The traces that each family's buckets name."""
    families = text_string_to_metric_families(metrics.exposition(openmetrics=True).decode())
    return {
        family.name: {sample.exemplar.labels["trace_id"] for sample in family.samples if sample.exemplar}
        for family in families
        if family.type == "histogram"
    }


def test_buckets_name_the_newest_sampled_trace_in_openmetrics_only() -> None:
    metrics = Metrics()
    times = {"waited_ms": 0.1, "gateway_ms": 0.1, "sent_ms": 0.2, "answered_ms": 0.3, "duration_ms": 0.4}
    count(metrics, handed(trace_id="a" * 32, **times), sampled=True)
    count(metrics, handed(trace_id="b" * 32, **times), sampled=True)
    count(metrics, handed(trace_id="c" * 32, **times))
    assert exemplars(metrics) == {
        "phoenixflight_handoff_duration_seconds": {"b" * 32},
        "phoenixflight_gateway_duration_seconds": {"b" * 32},
        "phoenixflight_phase_duration_seconds": {"b" * 32},
    }
    assert b"trace_id" not in metrics.exposition()


@pytest.mark.parametrize(
    ("group", "planner", "elsewhere"),
    [
        (PrincipalGroup.NAMESPACE, "agents", "other"),
        (PrincipalGroup.SERVICE_ACCOUNT, "planner", "other"),
        (PrincipalGroup.TRUST_DOMAIN, "mesh.local", "mesh.remote"),
        (PrincipalGroup.NONE, "", ""),
    ],
)
def test_callers_are_grouped_by_a_part_of_their_ids(group: PrincipalGroup, planner: str, elsewhere: str) -> None:
    principals = Principals(group)
    assert principals.of(PLANNER) == planner
    assert principals.of("spiffe://mesh.remote/some/where/ns") == elsewhere
    assert principals.of("") == ""


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            True,
        ),
        ("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("text/html, */*", False),
        ("", False),
    ],
)
def test_openmetrics_is_for_those_who_ask_for_it(accept: str, openmetrics: bool) -> None:
    assert asks_for_openmetrics(accept) is openmetrics


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.text(max_size=20))
def test_any_text_can_be_a_label(change: str, name: str) -> None:
    metrics = Metrics()
    metrics.certificate_lives = lambda: {("crl", name): (1.0, 2.0)}
    count(metrics, handed(shadow=f"refuse: {change}"))
    families = {f.name: f for f in text_string_to_metric_families(metrics.exposition(openmetrics=True).decode())}
    (shadow,) = families["phoenixflight_shadow_changes"].samples
    assert shadow.labels["change"] == f"refuse: {change}"
    (end,) = families["phoenixflight_certificate_end_timestamp_seconds"].samples
    assert (end.labels["name"], end.value) == (name, 2.0)


async def test_the_loop_has_its_turn_while_a_large_scrape_is_made() -> None:
    metrics = Metrics()
    for agent in range(500):
        for capability in range(50):
            count(metrics, handed(capability=f"work.kind-{capability}", agent=f"executor-{agent}"))
    turns = 0

    def slowly() -> Iterator[bytes]:
        """The pieces, as on a machine where each takes longer than a slice."""
        for piece in metrics.pieces():
            until = perf_counter() + 0.006
            while perf_counter() < until:
                pass
            yield piece

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    text = await in_slices(slowly())
    turning.cancel()
    pieces = list(metrics.pieces())
    assert len(numbers(text.decode(), "phoenixflight_handoffs_total")) == 25_000
    assert turns >= len(pieces) - 1
    assert max(piece.count(b"\n") for piece in pieces) <= 502


def test_a_gateway_s_metrics_do_not_grow_with_its_conversations(raw_agent, start_gateway: StartGateway) -> None:
    gateway = start_gateway([member(raw_agent(answer_each).port)])

    def series() -> int:
        return gateway.admin("/metrics").text.count("\n")

    with gateway.client(http2=True) as client, gateway.client("coder") as coder:
        client.post("/run", headers={**CAPABILITY, "flight-conversation": '"c"'})
        coder.post("/run", headers=CAPABILITY)
        client.post("/run", headers={**CAPABILITY, "flight-conversation": '"c"'})
        before = series()
        for number in range(200):
            client.post(
                "/run",
                headers={**CAPABILITY, "flight-conversation": f'"c-{number}"', "flight-task": f'"t-{number}"'},
            )
        assert series() == before
    text = gateway.admin("/metrics").text
    assert numbers(text, "phoenixflight_principal_handoffs_total") == {
        'outcome="completed",principal_group="agents"': 203
    }
    assert numbers(text, "phoenixflight_ready") == {"": 1}
