"""Values: each is documented, and wrong ones are refused with their path."""

from __future__ import annotations

import json
import runpy
from typing import Any

import jsonschema
import pytest

from tests.delivery import CHART, ROOT, Values, refusal
from tests.delivery.matrix import MATRIX

chart = runpy.run_path(str(ROOT / "tools" / "chart.py"))
FOUND = chart["values"]((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_the_schema_is_what_make_chart_writes() -> None:
    assert chart["schema"](FOUND) == SCHEMA


def test_the_page_has_each_value() -> None:
    text = (ROOT / "docs" / "helm.md").read_text()
    assert chart["page"](text, FOUND) == text


def test_the_copies_of_alerts_and_dashboards_are_in_step() -> None:
    for path, content in chart["copies"](ROOT, CHART).items():
        assert path.read_bytes() == content, f"make chart brings {path.name} up to date"


def closed(node: Any, path: str = "") -> None:
    """Each mapping with fields takes no others."""
    if isinstance(node, dict):
        if "properties" in node and path != "/global":
            assert node["additionalProperties"] is False, path
        for key, each in node.items():
            closed(each, f"{path}/{key}")


def test_no_value_is_taken_that_is_not_known() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    closed(SCHEMA)


@pytest.mark.parametrize("values", MATRIX.values(), ids=list(MATRIX))
def test_values_of_the_matrix_are_taken(values: Values) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(values)


WRONG: list[tuple[Values, str, str]] = [
    ({"replicas": "two"}, "/replicas", "integer"),
    ({"replica": 2}, "", "replica"),
    ({"drain": {"timeout": "30"}}, "/drain/timeout", "pattern"),
    ({"kind": "StatefulSet"}, "/kind", "Deployment"),
    ({"listeners": {"mesh": {"port": 80}}}, "/listeners/mesh/port", "minimum"),
    ({"listeners": {"mesh": {"port": 8443, "tsl": False}}}, "/listeners/mesh", "tsl"),
    ({"listeners": {"Mesh!": {"port": 8443}}}, "/listeners", "Mesh!"),
    ({"gateway": {"limits": {"maxConnections": 0}}}, "/gateway/limits/maxConnections", "minimum"),
    ({"gateway": {"limits": {"drainTimeout": "5s"}}}, "/gateway/limits", "drainTimeout"),
    ({"gateway": {"limits": {"idleTimeout": 5}}}, "/gateway/limits/idleTimeout", "string"),
    ({"gateway": {"listeners": []}}, "/gateway", "listeners"),
    ({"kubernetes": {"namespaces": ["Agents"]}}, "/kubernetes/namespaces/0", "pattern"),
    ({"image": {"digest": "sha256:1"}}, "/image/digest", "pattern"),
    ({"admin": {"allow": ["prometheus"]}}, "/admin/allow/0", "pattern"),
    ({"policies": {"documents": {"all.txt": {}}}}, "/policies/documents", "all.txt"),
]


@pytest.mark.helm
@pytest.mark.parametrize(("values", "path", "word"), WRONG, ids=[path or "/" for _, path, _ in WRONG])
def test_a_wrong_value_is_refused_with_its_path(values: Values, path: str, word: str) -> None:
    told = refusal(values)
    assert f"at '{path}'" in told
    assert word in told


AT_ODDS: list[tuple[Values, str]] = [
    ({"admin": {"exposed": True}}, "admin.exposed"),
    ({"admin": {"exposed": True, "tls": False, "allow": ["spiffe://mesh.local/a"]}}, "admin.allow"),
    ({"monitoring": {"monitor": "PodMonitor"}}, "monitoring.monitor"),
    ({"identity": {"source": "secret"}}, "identity.secretName"),
    ({"gateway": {"workers": 2}}, "gateway.workers"),
    ({"redis": {"enabled": True, "url": "redis://other"}}, "redis.url"),
    ({"kind": "DaemonSet", "autoscaling": {"enabled": True}}, "autoscaling.enabled"),
    ({"autoscaling": {"enabled": True, "cpuUtilization": 0}}, "autoscaling"),
]


@pytest.mark.helm
@pytest.mark.parametrize(("values", "path"), AT_ODDS, ids=[path for _, path in AT_ODDS])
def test_values_that_are_at_odds_are_refused_by_name(values: Values, path: str) -> None:
    assert f"{path}:" in refusal(values)
