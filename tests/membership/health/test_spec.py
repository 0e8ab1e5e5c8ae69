"""The settings, as people write them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gateway.membership.health import CheckSpec, CheckType, HealthSpec

ROOT = Path(__file__).parents[3]


def test_the_documentation_shows_the_defaults() -> None:
    shown = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "health.md").read_text(), re.DOTALL)
    assert shown is not None
    written = yaml.safe_load(shown[1])["health"]
    assert HealthSpec.model_validate(written) == HealthSpec(check=CheckSpec(path="/healthz"))
    outlier = HealthSpec().outlier.model_dump(by_alias=True)
    assert set(outlier) - set(written["outlier"]) == {"maxEjectedShare"}


@pytest.mark.parametrize("type_", [CheckType.GRPC, CheckType.TCP])
def test_a_path_is_for_http_only(type_: CheckType) -> None:
    with pytest.raises(ValueError, match="asks for no path"):
        CheckSpec(type=type_, path="/healthz")


@pytest.mark.parametrize("path", ["healthz", "/a b", "/a\r\nx: y", ""])
def test_a_path_is_one(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        CheckSpec(path=path)
