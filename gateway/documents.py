"""YAML documents with positions: text in, checked values or a list of problems out.  Pure.

Every document that people write (gateway, agents, policies) is read here, within limits on size, depth and
aliases; each mistake is reported with file, line and column, and what was expected.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

MAX_TEXT_BYTES = 1024 * 1024
MAX_DEPTH = 40
MAX_ALIASES = 16
MAX_VALUES = 100_000
"""In one document, with each alias counted as what it stands for."""

MAX_PROBLEMS = 100
"""Told of one document; the rest is likely to follow from them."""

API_VERSION: Final = "phoenixflight.io/v1"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, and where it stands."""

    source: str
    line: int
    """From 1; so is `column`."""
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}: {self.message}"


class DocumentError(Exception):
    """Documents that cannot be used; `problems` says why, one by one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class ErrorAt(ValueError):
    """What a validator of a whole raises about one part of it; `location` leads from the whole to the part."""

    def __init__(self, message: str, *location: str | int) -> None:
        super().__init__(message)
        self.location: Location = location


def refuse_duplicates(names: Iterable[str], what: str) -> None:
    """Check that list items have names of their own.

    Raises:
        ErrorAt: two `what` share a name; it points at the name of the second.

    """
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise ErrorAt(f"two {what} are named {name!r}", index, "name")
        seen.add(name)


def _seconds(value: object) -> float:
    matched = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if matched is None:
        raise ValueError("expected a duration such as 500ms, 30s, 5m or 1h")
    return float(matched[1]) * _UNITS[matched[2]]


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError(f"{value[:80]!r} is not a name: use lower-case letters, digits, '-' and '.' between them")
    return value


Duration = Annotated[float, BeforeValidator(_seconds)]
"""A length of time: ``500ms``, ``30s``, ``5m``, ``1h`` in YAML, seconds in Python."""

Name = Annotated[str, AfterValidator(_name)]
"""What documents, listeners and agents are called: a DNS name of at most 253 characters."""


class Spec(BaseModel):
    """What every part of a document shares: no unknown fields, no changes, camelCase in YAML."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        arbitrary_types_allowed=True,
    )


class Metadata(Spec):
    """A document's name and labels."""

    name: Name
    labels: dict[str, str] = {}


Model = TypeVar("Model", bound=BaseModel)

# What was expected, in words; keys and values in braces are pydantic's.
_WORDS = {
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "dict_type": "expected a mapping",
    "enum": "expected {expected}",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected {ge} or more",
    "int_from_float": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "less_than_equal": "expected {le} or less",
    "literal_error": "expected {expected}",
    "missing": "this field is required",
    "model_type": "expected a mapping",
    "path_type": "expected a path",
    "string_pattern_mismatch": "expected text of the form {pattern}",
    "string_too_long": "expected at most {max_length} characters",
    "string_too_short": "expected at least {min_length} character(s)",
    "string_type": "expected text (numbers, true and false are text in quotes)",
    "too_short": "expected at least {min_length} item(s)",
    "tuple_type": "expected a list",
}


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its content, and where each part of it stands."""

    source: str
    content: dict[str, Any]
    positions: dict[Location, tuple[int, int]] = field(repr=False)
    """Line and column of each value, and of each key under ``(*path, "key:" + name)``."""

    @property
    def kind(self) -> str:
        """The document's ``kind``."""
        return str(self.content.get("kind", ""))

    def problem(self, location: Location, message: str) -> Problem:
        """A problem at `location`, or at the nearest thing above it that exists."""
        for end in range(len(location), -1, -1):
            found = self.positions.get(location[:end])
            if found is not None:
                return Problem(self.source, *found, message)
        return Problem(self.source, 1, 1, message)

    def validate(self, model: type[Model]) -> Model:
        """The document as `model`.

        Raises:
            DocumentError: with every problem found.

        """
        try:
            return model.model_validate(self.content, by_alias=True, by_name=False)
        except ValidationError as error:
            details = error.errors()[:MAX_PROBLEMS]
            problems = [self._explain(model, each) for each in details if not _follows_from_another(each, details)]
            raise DocumentError(problems) from None

    def _explain(self, model: type[BaseModel], detail: Any) -> Problem:
        location: Location = tuple(detail["loc"])
        kind, context = detail["type"], detail.get("ctx", {})
        match kind:
            case "extra_forbidden":
                name = str(location[-1])
                known = _known_fields(model, location[:-1])
                close = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(sorted(known))}"
                return self.problem((*location[:-1], f"key:{name}"), f"unknown field {name!r}{hint}")
            case "value_error":
                error = context["error"]
                message = str(error)
                location += error.location if isinstance(error, ErrorAt) else ()
            case _:
                message = _WORDS[kind].format_map(context) if kind in _WORDS else detail["msg"]
        return self.problem(location, f"{'.'.join(map(str, location))}: {message}")


def _follows_from_another(detail: Any, details: Sequence[Any]) -> bool:
    """Whether a list is only too short because its items, told on their own, are not valid."""
    at = detail["loc"]
    return detail["type"] == "too_short" and any(
        each["loc"][: len(at)] == at and len(each["loc"]) > len(at) for each in details
    )


def _known_fields(model: Any, location: Location) -> list[str]:
    """Field names at `location` within `model`, as they stand in YAML."""
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", {})
        found = next((info for name, info in fields.items() if part in (name, info.alias)), None)
        if found is None:
            return []
        model = next(iter(_models_in(found.annotation)), None)
    return [info.alias or name for name, info in getattr(model, "model_fields", {}).items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def parse(text: str, source: str) -> list[Document]:
    """The YAML documents in `text`.

    Raises:
        DocumentError: it is too large, no YAML, too deep, full of aliases, has a tag or a key twice, or is no mapping.

    """
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise DocumentError([Problem(source, 1, 1, f"larger than {MAX_TEXT_BYTES} bytes")])
    try:
        _check_events(text, source)
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        line, column = (at.line + 1, at.column + 1) if at is not None else (1, 1)
        raise DocumentError([Problem(source, line, column, f"not YAML: {error.problem}")]) from None
    except yaml.YAMLError as error:
        raise DocumentError([Problem(source, 1, 1, f"not YAML: {error}")]) from None
    # "---" with nothing after it, as templates leave behind, is no document.
    return [_Reader(source).document(node) for node in nodes if node.value != ""]


def _check_events(text: str, source: str) -> None:
    """Refuse what must not even be composed: composing recurses, and a tag may name anything."""
    aliases = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > MAX_ALIASES:
            what = f"more than {MAX_ALIASES} aliases"
        elif depth > MAX_DEPTH:
            what = f"deeper than {MAX_DEPTH}"
        elif (tag := getattr(event, "tag", None)) is not None:
            what = f"the tag {tag} is not understood; write text in quotes"
        else:
            continue
        raise DocumentError([Problem(source, *_place(event), what)])


class _Loader(yaml.CSafeLoader):
    """Plain scalars by the core schema of YAML 1.2: ``no``, ``1:30`` and dates are text."""

    yaml_implicit_resolvers = {}


_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
for _tag, _form, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]{1,18}", list("-+0123456789")),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_form})\Z"), _first)


def _scalar(node: yaml.Node) -> str | float | bool | None:
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return node.value in ("true", "True", "TRUE")
    if node.tag == _INT:
        return int(node.value)
    return float(node.value) if node.tag == _FLOAT else str(node.value)


def _place(marked: Any) -> tuple[int, int]:
    """Line and column, from 1, of a YAML event or node."""
    return marked.start_mark.line + 1, marked.start_mark.column + 1


class _Reader:
    """From composed nodes to one `Document`."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._positions: dict[Location, tuple[int, int]] = {}
        self._problems: list[Problem] = []
        self._values = 0

    def document(self, node: yaml.Node) -> Document:
        content = self._value(node, ())
        if not isinstance(content, dict):
            self._refuse(node, "expected a mapping of names to values")
        if self._problems:
            raise DocumentError(self._problems)
        return Document(self._source, content, self._positions)

    def _refuse(self, node: yaml.Node, message: str) -> None:
        self._problems.append(Problem(self._source, *_place(node), message))

    def _value(self, node: yaml.Node, location: Location) -> Any:
        # An alias may stand for many values, or for one that it is itself a part of.
        self._values += 1
        if self._values > MAX_VALUES or len(location) > MAX_DEPTH:
            what = f"more than {MAX_VALUES} values" if self._values > MAX_VALUES else f"deeper than {MAX_DEPTH}"
            raise DocumentError([Problem(self._source, *_place(node), what)])
        self._positions[location] = _place(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(each, (*location, index)) for index, each in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, "a key must be plain text")
                continue
            key: str = key_node.value
            if key in mapping:
                self._refuse(key_node, f"{key!r} stands here twice")
            self._positions[(*location, f"key:{key}")] = _place(key_node)
            mapping[key] = self._value(value_node, (*location, key))
        return mapping


def single(text: str, source: str, kind: str, model: type[Model]) -> tuple[Document, Model]:
    """The one document of `kind` in `text`.

    Raises:
        DocumentError: there is none, there are several, or it is not valid.

    """
    documents = parse(text, source)
    if len(documents) != 1:
        raise DocumentError([Problem(source, 1, 1, f"expected one {kind} document, found {len(documents)}")])
    document = documents[0]
    check_kind(document, kind)
    return document, document.validate(model)


def check_kind(document: Document, *kinds: str) -> None:
    """Refuse a document of another kind or version, before its fields confuse anybody.

    Raises:
        DocumentError: it is of none of `kinds`.

    """
    if document.content.get("apiVersion") != API_VERSION:
        raise DocumentError([document.problem(("apiVersion",), f"apiVersion: expected {API_VERSION}")])
    if document.kind not in kinds:
        expected = " or ".join(kinds)
        raise DocumentError(
            [document.problem(("kind",), f"kind: expected {expected}, found {document.kind or 'none'}")]
        )
