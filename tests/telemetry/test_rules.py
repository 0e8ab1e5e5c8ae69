"""Prometheus takes the rules, which fire when they should; rules and dashboard read only what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.telemetry.catalogue import ROOT, catalogue, named

RULES = ROOT / "observability" / "prometheus"
DASHBOARD = ROOT / "observability" / "grafana" / "phoenixflight.json"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: see tools/test-deps")


def rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load((RULES / name).read_text()) for name in ("recording.yaml", "alerts.yaml")]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def known() -> set[str]:
    """What can be read: the catalogue, and what is recorded of it."""
    return catalogue().keys() | {rule["record"] for rule in rules() if "record" in rule}


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    promtool("check", "rules", str(RULES / "recording.yaml"), str(RULES / "alerts.yaml"))


@needs_promtool
@pytest.mark.parametrize("tests", sorted((RULES / "tests").glob("*.yaml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(tests: Path) -> None:
    promtool("test", "rules", str(tests))


def test_each_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on() -> None:
    for alert in alerts():
        assert alert["alert"].startswith("PhoenixFlight")
        assert alert["labels"]["severity"] in ("critical", "warning")
        annotations = alert["annotations"]
        assert annotations.keys() == {"summary", "description", "runbook_url"}
        assert annotations["runbook_url"].endswith(f"#{alert['alert'].lower()}")


def test_rules_and_dashboard_read_only_what_is_in_the_catalogue_or_recorded() -> None:
    read = {name for text in [*(rule["expr"] for rule in rules()), *expressions()] for name in named(text)}
    assert read - known() == set()
    assert len(read) > 30


def test_labels_that_rules_and_dashboard_name_are_in_the_catalogue() -> None:
    of_targets = {"job", "instance", "namespace", "le"}
    labels = {label for family in catalogue().values() for label in family.labels} | of_targets
    for text in [*(rule["expr"] for rule in rules()), *expressions()]:
        grouped = re.findall(r"(?:by|without) \(([^)]*)\)", text)
        selected = re.findall(r"([a-z_]+)(?:=~|!=|=)\"", text)
        assert {label.strip() for group in grouped for label in group.split(",")} | {*selected} <= labels, text


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    found = dashboard()
    assert found["schemaVersion"] >= 36
    assert found["uid"]
    assert found["title"]
    assert found["id"] is None
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] in ("row", "timeseries", "stat", "heatmap")
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["targets"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not any(overlap(one, other) for one, other in combinations(places, 2))
    assert {"datasource", "job", "instance"} == {each["name"] for each in found["templating"]["list"]}


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


@needs_promtool
def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    texts = [text.replace("$__rate_interval", "5m") for text in expressions()]
    rules = [{"record": f"dashboard:{number}", "expr": text} for number, text in enumerate(texts)]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))
