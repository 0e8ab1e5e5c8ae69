"""docs/leases.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.documents import DocumentError, parse
from gateway.leases import Fate, LeaseSpec

PAGE = (Path(__file__).parents[2] / "docs" / "leases.md").read_text(encoding="utf-8")


def read(text: str) -> LeaseSpec:
    (document,) = parse(text, "page")
    return document.validate(LeaseSpec)


def test_the_example_shows_every_field_with_its_default() -> None:
    (example,) = re.findall(r"```yaml\nleases:\n(.*?)```", PAGE, re.DOTALL)
    spec = read(example)
    assert spec == LeaseSpec()
    assert spec.model_fields_set == set(LeaseSpec.model_fields)


def test_every_fate_is_on_the_page() -> None:
    for fate in Fate:
        assert f"| `{fate.value}` |" in PAGE


@pytest.mark.parametrize("text", ["remember: 1m", "idle: 0s", "movesPerSecond: 0", "capacity: 0", "idle: 300"])
def test_a_lease_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        read(text)
