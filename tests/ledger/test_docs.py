"""docs/ledger.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.documents import DocumentError, parse
from gateway.ledger import LedgerSpec
from gateway.proxy.once import Event
from gateway.refusal import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")


def read(text: str) -> LedgerSpec:
    (document,) = parse(text, "page")
    return document.validate(LedgerSpec)


def test_the_example_shows_every_field_with_its_default() -> None:
    (example,) = re.findall(r"```yaml\nledger:\n(.*?)```", PAGE, re.DOTALL)
    spec = read(example)
    assert spec == LedgerSpec()
    assert spec.model_fields_set == set(LedgerSpec.model_fields)


def test_every_event_and_every_refusal_of_the_ledger_s_own_is_on_the_page() -> None:
    for event in Event:
        assert f"| `{event.value}` |" in PAGE
    for reason in (Reason.IN_FLIGHT, Reason.ID_CONFLICT, Reason.OUTCOME_UNKNOWN, Reason.TUNNEL_REFUSED):
        assert f"{reason.status} `{reason.slug}`" in PAGE


@pytest.mark.parametrize(
    "text", ["capabilities: ['a b']", "twins: often", "wait: 0s", "remember: 3600", "capacity: 0", "maxHeld: 1", "x: 1"]
)
def test_a_ledger_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        read(text)
