"""docs/limits.md tells of every limit, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.control.config import Limits, RetrySpec
from gateway.documents import Spec
from gateway.overload import OverloadSpec

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)


@pytest.mark.parametrize("spec", [Limits, OverloadSpec, RetrySpec])
def test_each_limit_has_the_default_that_its_page_says(spec: type[Spec]) -> None:
    told = dict(ROW.findall(PAGE))
    for name, field in spec.model_fields.items():
        default = told[field.alias or name]
        if default == "none":
            assert field.default is None
        else:
            assert getattr(spec.model_validate({field.alias or name: _value(default)}), name) == field.default


def test_the_page_tells_of_nothing_else() -> None:
    names = {field.alias for spec in (Limits, OverloadSpec, RetrySpec) for field in spec.model_fields.values()}
    assert {name for name, _ in ROW.findall(PAGE)} == names


def _value(told: str) -> str | float:
    return float(told) if told.isdigit() else told
