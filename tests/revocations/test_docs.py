"""docs/revocation.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.authority import Kind
from gateway.documents import parse
from gateway.revocations import RevocationSpec, load_entries

PAGE = (Path(__file__).parents[2] / "docs" / "revocation.md").read_text(encoding="utf-8")


def test_the_example_shows_every_field_and_its_document_is_one() -> None:
    (example,) = re.findall(r"```yaml\nrevocations:\n(.*?)```", PAGE, re.DOTALL)
    (document,) = parse(example, "page")
    assert document.validate(RevocationSpec).model_fields_set == set(RevocationSpec.model_fields)
    (text,) = re.findall(r"```yaml\n(apiVersion.*?)```", PAGE, re.DOTALL)
    assert len(load_entries({"page": text})) == 1


def test_every_kind_is_on_the_page() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == [kind.value for kind in Kind]
