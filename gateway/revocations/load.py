"""From the text of Revocations documents to entries; all of them, or none.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from gateway.authority.revocations import NEVER, Entry, Kind, entry
from gateway.documents import API_VERSION, DocumentError, ErrorAt, Metadata, Problem, Spec, check_kind, parse


def _moment(value: object) -> float:
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise ValueError("expected a time with its zone, such as 2026-12-01T00:00:00Z")
    return when.timestamp()


class Revoked(Spec):
    """One thing that is revoked."""

    kind: Kind
    value: str
    until: Annotated[float, BeforeValidator(_moment)] = NEVER
    """When it ends, RFC 3339; without it, when it is taken out of the file."""
    why: str = ""

    @model_validator(mode="after")
    def _can_be_meant(self) -> Revoked:
        try:
            entry(self.kind, self.value, self.until, self.why)
        except ValueError as error:
            raise ErrorAt(str(error), "value") from None
        return self


class _RevokedList(Spec):
    revoked: tuple[Revoked, ...] = ()


class RevocationsDocument(Spec):
    """A document of the kind Revocations."""

    api_version: Literal["phoenixflight.io/v1"] = API_VERSION
    kind: Literal["Revocations"] = "Revocations"
    metadata: Metadata
    spec: _RevokedList


def load_entries(sources: Mapping[str, str]) -> tuple[Entry, ...]:
    """What the documents in `sources` (file name to text) revoke.

    Raises:
        DocumentError: with every problem of every file.

    """
    found: list[Entry] = []
    problems: list[Problem] = []
    for source in sorted(sources):
        try:
            for document in parse(sources[source], source):
                check_kind(document, "Revocations")
                listed = document.validate(RevocationsDocument).spec.revoked
                found += [entry(each.kind, each.value, each.until, each.why, source) for each in listed]
        except DocumentError as error:
            problems += error.problems
    if problems:
        raise DocumentError(problems)
    return tuple(found)
