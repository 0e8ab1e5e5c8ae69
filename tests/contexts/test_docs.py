"""docs/contexts.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.contexts import ContextSpec, Event
from gateway.documents import DocumentError, parse
from gateway.refusal import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "contexts.md").read_text(encoding="utf-8")


def read(text: str) -> ContextSpec:
    (document,) = parse(text, "page")
    return document.validate(ContextSpec)


def test_the_example_shows_every_field_with_its_default() -> None:
    (example,) = re.findall(r"```yaml\ncontexts:\n(.*?)```", PAGE, re.DOTALL)
    spec = read(example)
    assert spec == ContextSpec(folder=spec.folder, keys=spec.keys)
    assert spec.model_fields_set | {"s3"} == set(ContextSpec.model_fields)
    other = read(
        re.sub(r"(?m)^  folder: .*\n", "", example).replace("store: disk", "store: s3").replace("# s3:", "s3:")
    )
    assert other.s3 is not None
    assert other.s3.model_fields_set == set(type(other.s3).model_fields)


def test_every_event_and_every_refusal_of_the_store_s_own_is_on_the_page() -> None:
    for event in Event:
        assert f"| `{event.value}` |" in PAGE
    for reason in Reason:
        if reason.slug.startswith("context-"):
            assert f"{reason.status} `{reason.slug}`" in PAGE or f"{reason.status} {reason.slug}" in PAGE


@pytest.mark.parametrize(
    "text",
    [
        "folder: a",
        "{folder: a, keys: []}",
        "{keys: [k]}",
        "{keys: [k], store: redis, folder: a}",
        "{keys: [k], store: s3}",
        "{keys: [k], store: s3, s3: {endpoint: ftp://a, bucket: abc, credentials: c}}",
        "{keys: [k], folder: a, maxHeld: 1}",
        "{keys: [k], folder: a, maxInline: 40000}",
        "{keys: [k], folder: a, x: 1}",
    ],
)
def test_a_store_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        read(text)
