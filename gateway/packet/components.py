"""What a signature covers: parts of a request, each with one exact text (RFC 9421 section 2).  Pure.

Enters: a covered list, ``("@method" "flight-id" …)``, and a request's head.  Leaves: the signature base.
Callers repeat their lists, so a list is read once and then remembered, with a reader for each of its components.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import http_sf
import msgspec

from gateway.messages import Fields, RequestHead

FieldValues = Mapping[bytes, bytes]
"""Each field's lines as one value (section 2.1), by name."""
Reader = Callable[[RequestHead, FieldValues], bytes]

MAX_COMPONENTS = 64
"""In one covered list."""

_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


class SignatureError(ValueError):
    """A signature that does not hold; the message names the component or parameter that failed, and no more."""


class Covered(msgspec.Struct, frozen=True):
    """A covered list, read."""

    lines: tuple[tuple[bytes, Reader], ...]
    """Each component's identifier, as its line in the signature base starts, and what reads its value."""
    whole: frozenset[bytes]
    """Names of the components that are covered in whole: not by one dictionary member only."""


def combine(fields: Fields) -> dict[bytes, bytes]:
    """The fields by name, several lines of one joined by a comma and a space (section 2.1)."""
    combined: dict[bytes, bytes] = {}
    for name, value in fields:
        value = value.strip(b" \t")
        combined[name] = combined[name] + b", " + value if name in combined else value
    return combined


def signature_base(head: RequestHead, values: FieldValues, covered: Covered, parameters: bytes) -> bytes:
    """The text that is signed (section 2.5).

    Args:
        head: the request.
        values: its fields, from `combine`.
        covered: what the signature covers.
        parameters: the covered list and the signature's parameters, in canonical form.

    Raises:
        SignatureError: the request has no such component, or not with one value.

    """
    lines = [start + read(head, values) for start, read in covered.lines]
    lines.append(b'"@signature-params": ' + parameters)
    base = b"\n".join(lines)
    if base.count(b"\n") != len(covered.lines) or not base.isascii():
        raise SignatureError("a covered value has characters that cannot be signed; cover the field with ;bs")
    return base


def covered_list(text: bytes) -> Covered | None:
    """Read a covered list; ``None`` when it is none in canonical form (RFC 9651 section 4.1.1.1).

    Raises:
        SignatureError: it covers too much, something twice, or something that no request has.

    """
    return _read_list(text) if len(text) > _REMEMBERED_BYTES else _remembered_list(text)


def _read_list(text: bytes) -> Covered | None:
    try:
        members: Any = http_sf.parse(text, tltype="list")
        if len(members) != 1 or http_sf.ser(members).encode("ascii") != text:
            return None
    except http_sf.StructuredFieldError:
        return None
    items, _ = members[0]
    if not isinstance(items, list):
        return None
    if len(items) > MAX_COMPONENTS:
        raise SignatureError(f"signature-input: more than {MAX_COMPONENTS} components")
    lines: list[tuple[bytes, Reader]] = []
    seen: set[tuple[str, frozenset[Any]]] = set()
    whole: set[bytes] = set()
    for name, parameters in items:
        if type(name) is not str or name != name.lower():
            raise SignatureError(f"signature-input: {str(name)[:60]!r} is not a component's name, in lower case")
        identifier = http_sf.ser((name, parameters)).encode("ascii")
        identity = (name, frozenset(parameters.items()))  # the parameters' order makes no difference (section 2)
        if identity in seen:
            raise SignatureError(f"{identifier.decode()[:60]}: covered twice")
        seen.add(identity)
        lines.append((identifier + b": ", _reader(name, parameters)))
        if "key" not in parameters:
            whole.add(name.encode("ascii"))
    return Covered(tuple(lines), frozenset(whole))


_REMEMBERED_BYTES = 512
_remembered_list = lru_cache(maxsize=1024)(_read_list)


def _reader(name: str, parameters: Mapping[str, Any]) -> Reader:
    for parameter in ("req", "tr"):
        if parameter in parameters:
            raise SignatureError(f'"{name[:60]}";{parameter}: a request is signed by its own head alone')
    if name == "@query-param" and parameters.keys() == {"name"} and type(parameters["name"]) is str:
        return _query_parameter(parameters["name"])
    if name.startswith("@"):
        read = _DERIVED.get(name)
        if read is None or parameters:
            raise SignatureError(f'"{name[:60]}": not a component of a request')
        return read
    return _field(name, parameters)


# -- derived components, section 2.2 ----------------------------------------------------------------------


def _authority(head: RequestHead, _: FieldValues) -> bytes:
    authority = head.authority.lower()
    return authority.removesuffix(_DEFAULT_PORTS.get(head.scheme, b" "))


def _path(head: RequestHead, _: FieldValues) -> bytes:
    return head.path.partition(b"?")[0] or b"/"


_DERIVED: dict[str, Reader] = {
    "@method": lambda head, _: head.method,
    "@target-uri": lambda head, _: b"%s://%s%s" % (head.scheme, head.authority, head.path),
    "@authority": _authority,
    "@scheme": lambda head, _: head.scheme,
    "@request-target": lambda head, _: head.path or head.authority,
    "@path": _path,
    "@query": lambda head, _: b"?" + head.path.partition(b"?")[2],
}


def _query_parameter(name: str) -> Reader:
    """Section 2.2.8: names and values are decoded, and the value encoded anew."""
    wanted = unquote(name)

    def read(head: RequestHead, _: FieldValues) -> bytes:
        found = [value for key, value in _query(head.path.partition(b"?")[2]) if key == wanted]
        if len(found) != 1:
            raise SignatureError(f'"@query-param": {wanted[:60]!r} stands {len(found)} times in the query')
        return quote(found[0], safe="*").replace("~", "%7E").encode("ascii")

    return read


# One list may ask for many members of one long value, which is then parsed once.
@lru_cache(maxsize=16)
def _query(raw: bytes) -> list[tuple[str, str]]:
    return parse_qsl(raw.decode("ascii", "replace"), keep_blank_values=True)


@lru_cache(maxsize=16)
def _dictionary(raw: bytes) -> Any:
    return http_sf.parse(raw, tltype="dictionary")


# -- fields, section 2.1 ----------------------------------------------------------------------------------

_TYPES = {
    "flight-capability": "list",
    "flight-budget": "dictionary",
    "flight-context": "dictionary",
    "content-digest": "dictionary",
}
"""Of fields that the library does not know; all other ``flight-*`` fields are items."""


def _field(name: str, parameters: Mapping[str, Any]) -> Reader:
    field = name.encode("ascii")
    kind = _TYPES.get(name, "item" if name.startswith("flight-") else None)
    member = parameters.get("key")

    def plain(_: RequestHead, values: FieldValues) -> bytes:
        value = values.get(field)
        if value is None:
            raise SignatureError(f'"{name[:60]}": the request has no such field')
        return value

    def strict(head: RequestHead, values: FieldValues) -> bytes:
        value = plain(head, values)
        try:
            return http_sf.ser(http_sf.parse(value, name, kind)).encode("ascii")
        except (ValueError, KeyError):
            raise SignatureError(f'"{name[:60]}";sf: no structured field of a type that is known') from None

    def keyed(head: RequestHead, values: FieldValues) -> bytes:
        value = plain(head, values)
        try:
            return http_sf.ser([_dictionary(value)[member]]).encode("ascii")
        except (ValueError, KeyError):
            raise SignatureError(f'"{name[:60]}";key: the field is no dictionary with that member') from None

    def wrapped(head: RequestHead, values: FieldValues) -> bytes:
        plain(head, values)
        lines: Any = [(value.strip(b" \t"), {}) for line, value in head.fields if line == field]
        return http_sf.ser(lines).encode("ascii")

    match sorted(parameters.items()):
        case []:
            return plain
        case [("sf", True)]:
            return strict
        case [("key", str())] | [("key", str()), ("sf", True)]:
            return keyed
        case [("bs", True)]:
            return wrapped
    raise SignatureError(f'"{name[:60]}": its parameters are unknown, or do not go together')
