"""A payload inside an envelope: as JSON where it is JSON, as text where it is text, else in base64.  Pure."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from typing import Final, NoReturn

from pydantic import JsonValue

from gateway.documents import ErrorAt

MAX_DEPTH: Final = 64
"""How deep arrays and objects may nest."""

_MAX_SAFE_INTEGER = 2**53 - 1


def is_json(content_type: str) -> bool:
    """Whether a payload of `content_type` is JSON; so is one of no stated type, as in CloudEvents."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("", "application/json") or media_type.endswith("+json")


def payload_members(content_type: str, body: bytes) -> dict[str, JsonValue]:
    """The member that holds `body`: ``data`` where writing that gives the same bytes again, else ``data_base64``."""
    try:
        if is_json(content_type):
            value = check_i_json(parse_json(body))
            if compact(value) == body:
                return {"data": value}
        elif content_type.lower().startswith("text/"):
            return {"data": body.decode()}
    except ValueError:
        pass  # neither I-JSON nor UTF-8
    return {"data_base64": base64.b64encode(body).decode()}


def compact(value: JsonValue) -> bytes:
    """`value` as JSON without white space, members in their order."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def parse_json(text: bytes) -> JsonValue:
    """The JSON value in `text`; readers differ about which of two members of one name counts, so there is one.

    Raises:
        ValueError: it is not UTF-8, not JSON (RFC 8259), far too deep, or has a name twice.

    """
    try:
        value: JsonValue = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    return value


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"{first_repeated(name for name, _ in pairs)!r} stands twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def first_repeated(names: Iterable[str]) -> str | None:
    """The first of `names` that has come before, or ``None``."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_i_json(value: JsonValue, *location: str | int) -> JsonValue:
    """`value`, checked against RFC 7493, so that every reader and the canonical form see the same.

    Raises:
        ErrorAt: it has what cannot be told from something else; it points at the place.

    """
    if isinstance(value, dict | list) and len(location) >= MAX_DEPTH:
        raise ErrorAt(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for name, each in value.items():
            check_i_json(name, *location)
            check_i_json(each, *location, name)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            check_i_json(each, *location, index)
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ErrorAt("text with half a surrogate pair", *location)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ErrorAt("a number beyond what a double can hold", *location)
    elif value is not None and abs(value) > _MAX_SAFE_INTEGER:
        raise ErrorAt("an integer beyond 2**53 - 1; write it as text", *location)
    return value
