"""A run is held against the one on record by its ratios, which hold on another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.regression import TOLERANCE, record, slower
from bench.table import ENVOY, OURS, Cell, Row

HTTP2 = "CPU per handoff, HTTP/2 in"
RULES = "CPU per handoff, 2,000 rules over 1"


def rows(*, http2: float = 1.0, rules: float = 1.0, latency: float = 1.0, us: float = 100.0) -> list[Row]:
    cell = Cell(us, us, us)
    return [
        Row(HTTP2, "µs", {OURS: cell, ENVOY: cell}, to_envoy=http2),
        Row(RULES, "×", {OURS: Cell(rules, rules, rules)}),
        Row("latency added, p99", "ms", {OURS: cell, ENVOY: cell}, to_envoy=latency),
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    record(rows(), "2026-01-01", tmp_path / "record.json")
    return tmp_path / "record.json"


def test_a_run_that_is_as_the_one_on_record_is_not_slower(path: Path) -> None:
    assert slower(rows(), path) == []
    assert slower(rows(http2=TOLERANCE, rules=0.5), path) == []


def test_each_ratio_that_grew_is_told(path: Path) -> None:
    found = slower(rows(http2=1.3, rules=1.4), path)
    assert [(each.label, each.before, each.now) for each in found] == [(HTTP2, 1.0, 1.3), (RULES, 1.0, 1.4)]


def test_another_machine_and_its_neighbours_make_no_run_slower(path: Path) -> None:
    assert slower(rows(us=1000.0, latency=9.0), path) == []


def test_without_a_record_nothing_is_slower(tmp_path: Path) -> None:
    assert slower(rows(http2=9.0), tmp_path / "record.json") == []
