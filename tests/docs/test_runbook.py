"""docs/runbook.md has a section for each alert, by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "runbook.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
RULES = sorted((ROOT / "observability").rglob("*.y*ml"))
METRIC = re.compile(r"\bphoenixflight_[a-z0-9_]+")


def alerts() -> list[str]:
    groups = [group for path in RULES for group in (yaml.safe_load(path.read_text()) or {}).get("groups", ())]
    return [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]


@pytest.mark.skipif(not RULES, reason="there are no alert rules")
def test_each_alert_has_its_section_and_no_section_is_of_none() -> None:
    assert set(SECTIONS) == set(alerts())


@pytest.mark.parametrize("alert", SECTIONS)
def test_a_section_says_what_it_means_how_to_look_and_what_to_do(alert: str) -> None:
    for part in ("**Means.**", "**Look.**", "**Do.**"):
        assert part in SECTIONS[alert]


def test_the_page_speaks_of_metrics_that_there_are() -> None:
    """The catalogue has those of others, too; what the recorder exports is its own page's to tell."""
    catalogue = (ROOT / "docs" / "metrics.md").read_text()
    known = set(METRIC.findall(catalogue))
    for name in METRIC.findall(PAGE):
        if not name.startswith("phoenixflight_recorder_"):
            assert name in known, name
