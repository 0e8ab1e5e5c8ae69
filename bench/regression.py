"""Whether a run is slower than the last one on record, by ratios: those hold on another machine, times do not.

Only ratios of CPU are compared.  Latencies on a shared machine tell of its other tenants.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench.table import OURS, Row

RECORD = Path(__file__).parent / "record.json"
TOLERANCE = 1.25
"""So much may a ratio grow by the machine's moods: it is what rounds of one run differ by."""


@dataclass(frozen=True, slots=True)
class Slower:
    """A measure that has become worse."""

    label: str
    before: float
    now: float


def ratios(rows: list[Row]) -> dict[str, float]:
    """What is compared: ours over Envoy's CPU, or ours under one circumstance over another, by label."""
    found = {}
    for row in rows:
        if "CPU" not in row.label or row.label.startswith("handoffs"):
            continue
        if row.to_envoy is not None:
            found[row.label] = row.to_envoy
        elif row.unit == "×":
            found[row.label] = row.cells[OURS].median
    return found


def record(rows: list[Row], date: object, path: Path = RECORD) -> None:
    """Make this run the one that later ones are compared with."""
    rounded = {label: round(value, 3) for label, value in ratios(rows).items()}
    path.write_text(json.dumps({"date": date, "ratios": rounded}, indent=1, ensure_ascii=False) + "\n")


def slower(rows: list[Row], path: Path = RECORD) -> list[Slower]:
    """What has become worse than on record by more than `TOLERANCE`; nothing where there is no record."""
    if not path.exists():
        return []
    before = json.loads(path.read_text())["ratios"]
    now = ratios(rows)
    return [
        Slower(label, before[label], value)
        for label, value in now.items()
        if label in before and value > TOLERANCE * before[label]
    ]
