"""The metrics of several workers as those of one gateway."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.handoff import Handoff, Outcome
from gateway.telemetry.families import IDLE_S
from gateway.telemetry.merged import MergedMetrics
from gateway.telemetry.metrics import Metrics
from tests.fleet import numbers


def exposition(*, opened: int = 0, closed: int = 0, ok: bool = True, judged_s: float = 0.0, revision: str = "r") -> str:
    metrics = Metrics()
    for _ in range(opened):
        metrics.connection_opened("mesh")
    for _ in range(closed):
        metrics.connection_closed("mesh")
    metrics.last_reload_ok = ok
    metrics.judged_again(judged_s)
    metrics.revision = revision
    return metrics.exposition().decode()


def served(capability: str = "code.execute", *, trace: str = "", at: int = 0, openmetrics: bool = True) -> str:
    """What a worker that has served one packet tells."""
    metrics = Metrics()
    when = datetime.fromtimestamp(1_800_000_000 + at, UTC)
    handoff = Handoff(time=when, outcome=Outcome.COMPLETED, capability=capability, trace_id=trace, duration_ms=4.0)
    metrics.handoff(handoff, 0.0001, 0.004, sampled=bool(trace))
    return metrics.exposition(openmetrics=openmetrics).decode()


def merged(*texts: str) -> str:
    return MergedMetrics().merge({str(number): text for number, text in enumerate(texts)}).decode()


def test_one_worker_alone_reads_as_it_would_without_a_supervisor() -> None:
    alone = exposition(opened=3, closed=1)
    assert sorted(merged(alone).splitlines()) == sorted(alone.splitlines())


def test_counts_are_added_up_and_of_the_rest_the_worst_is_told() -> None:
    text = merged(
        exposition(opened=3, closed=1, judged_s=0.5, revision="a"),
        exposition(opened=4, ok=False, judged_s=0.25, revision="b"),
    )
    assert numbers(text, "phoenixflight_connections_opened_total") == {'listener="mesh"': 7}
    assert numbers(text, "phoenixflight_connections") == {'listener="mesh"': 6}
    assert numbers(text, "phoenixflight_last_reload_successful") == {"": 0}
    assert numbers(text, "phoenixflight_reauthorization_seconds") == {"": 0.5}
    assert numbers(text, "phoenixflight_revision_info") == {'revision="a"': 1, 'revision="b"': 1}
    assert numbers(text, "phoenixflight_gateway_duration_seconds_count") == {"": 0}


def test_both_formats_are_read_and_written() -> None:
    texts = {"1.0": served(), "2.0": served(openmetrics=False)}
    plain, exact = (MergedMetrics().merge(texts, openmetrics=openmetrics).decode() for openmetrics in (False, True))
    count = "phoenixflight_handoff_duration_seconds_count"
    assert numbers(plain, count) == numbers(exact, count) == {'capability="code.execute"': 2}
    assert [*text_string_to_metric_families(exact)]
    assert "# TYPE phoenixflight_handoffs_total counter" in plain
    assert "# EOF" not in plain


def test_of_two_exemplars_the_newer_is_told() -> None:
    texts = {"1.0": served(trace="a" * 32, at=2), "2.0": served(trace="b" * 32, at=1), "3.0": served()}
    text = MergedMetrics().merge(texts, openmetrics=True).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["phoenixflight_handoff_duration_seconds"].samples
    assert [sample.exemplar.labels["trace_id"] for sample in samples if sample.exemplar] == ["a" * 32]
    assert " # {" not in MergedMetrics().merge(texts).decode()


def test_what_one_worker_forgets_stays_counted_until_none_has_it_for_ten_minutes() -> None:
    now = 0.0
    metrics = MergedMetrics(lambda: now)
    name = "phoenixflight_handoff_duration_seconds_count"

    def told(first: str | None, second: str | None) -> dict[str, float]:
        texts = {"1.0": first, "2.0": second}
        text = metrics.merge({life: text for life, text in texts.items() if text is not None}).decode()
        found = numbers(text, name)
        assert numbers(text, name.replace("count", "bucket")).keys() >= {f'{labels},le="+Inf"' for labels in found}
        return {labels.split('"')[1]: value for labels, value in found.items()}

    assert told(served(), served()) == {"code.execute": 2}
    assert told(exposition(), served()) == {"code.execute": 2}
    now += IDLE_S
    assert told(exposition(), served()) == {"code.execute": 2}
    assert told(exposition(), None) == {"code.execute": 2}
    now += IDLE_S - 1
    assert told(exposition(), exposition()) == {"code.execute": 2}
    now += 1
    assert told(exposition(), exposition()) == {}
    assert told(exposition(), served()) == {"code.execute": 1}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 3)), max_size=12))
def test_no_counter_goes_back_whoever_dies_or_does_not_answer(steps: list[tuple[int, bool, int]]) -> None:
    metrics = MergedMetrics()
    lives, counts = [0, 0, 0], [0, 0, 0]
    before = 0.0
    for worker, dies, more in steps:
        if dies:
            lives[worker] += 1
            counts[worker] = 0
        counts[worker] += more
        texts = {
            f"{number}.{life}": exposition(opened=counts[number]) if number == worker or more % 2 else None
            for number, life in enumerate(lives)
        }
        text = metrics.merge(texts).decode()
        now = sum(numbers(text, "phoenixflight_connections_opened_total").values())
        assert now >= before
        before = now
