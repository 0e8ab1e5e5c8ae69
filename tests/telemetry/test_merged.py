"""The metrics of several workers as those of one gateway."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

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
