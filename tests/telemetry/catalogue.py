"""What docs/metrics.md says that there is, and what a scrape says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from prometheus_client.openmetrics.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"\| `(?P<name>[a-z_]+)` \| (?P<kind>counter|gauge|histogram) \| (?P<labels>[a-z_`, ]*?) ?\| .+ \|")
_SUFFIX = re.compile(r"_(?:bucket|count|sum)$")


class Family(NamedTuple):
    """A metric: its type, and its labels."""

    kind: str
    labels: frozenset[str]


def catalogue() -> dict[str, Family]:
    """Every metric of the documentation, by name."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = [_ROW.fullmatch(line) for line in text.splitlines()]
    found = {row["name"]: Family(row["kind"], frozenset(re.findall(r"`(\w+)`", row["labels"]))) for row in rows if row}
    assert len(found) == len(re.findall(r"^\| `(?:phoenixflight|process)_", text, re.MULTILINE)), (
        "a row is not as the others"
    )
    return found


def scraped(openmetrics: str) -> dict[str, Family | None]:
    """Every metric of a scrape, as far as its labels are known: ``None`` where it has no samples.

    The parser is strict about the format.
    """
    found: dict[str, Family | None] = {}
    for family in text_string_to_metric_families(openmetrics):
        name = family.name + "_total" if family.type == "counter" else family.name
        labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        assert len(labels) <= 1, f"{name} has samples of several sets of labels"
        found[name] = Family(family.type, labels.pop()) if labels else None
    return found


def named(expression: str) -> set[str]:
    """The metrics that PromQL reads, as the catalogue has them; what was recorded keeps its colons."""
    known = catalogue()
    words = re.findall(r"(?<![\w:$])(?:\w+:)?(?:phoenixflight|process)_\w+(?::\w+)?", expression)
    return {word if ":" in word or word in known else _SUFFIX.sub("", word) for word in words}
