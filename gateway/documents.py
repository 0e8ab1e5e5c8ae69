"""YAML documents with positions: text in, checked values or a list of problems out.  Pure.

Every document that people write (gateway, agents, policies) is read here, within limits on size, depth and
aliases; each mistake is reported with file, line and column, and what was expected.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

MAX_TEXT_BYTES = 1024 * 1024
MAX_DEPTH = 40
MAX_ALIASES = 16

API_VERSION: Final = "phoenixflight.io/v1"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")

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


def _seconds(value: object) -> object:
    if isinstance(value, str):
        matched = _DURATION.fullmatch(value)
        if matched is not None:
            return float(matched[1]) * _UNITS[matched[2]]
    if isinstance(value, float):
        return value  # a default, in seconds already
    raise ValueError("expected a duration such as 500ms, 30s, 5m or 1h")


Duration = Annotated[float, BeforeValidator(_seconds)]
"""A length of time: ``500ms``, ``30s``, ``5m``, ``1h`` in YAML, seconds in Python."""


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

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    labels: dict[str, str] = {}


Model = TypeVar("Model", bound=BaseModel)


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
            return model.model_validate(self.content)
        except ValidationError as error:
            details = error.errors()
            problems = [self._explain(model, each) for each in details if not _follows_from_another(each, details)]
            raise DocumentError(problems) from None

    def _explain(self, model: type[BaseModel], detail: Any) -> Problem:
        location: Location = tuple(detail["loc"])
        path = ".".join(str(part) for part in location)
        match detail["type"]:
            case "extra_forbidden":
                name = str(location[-1])
                known = _known_fields(model, location[:-1])
                close = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(sorted(known))}"
                return self.problem((*location[:-1], f"key:{name}"), f"unknown field {name!r}{hint}")
            case "missing":
                return self.problem(location[:-1], f"{path}: this field is required")
            case "value_error":
                return self.problem(location, f"{path}: {detail['ctx']['error']}")
            case _:
                message = detail["msg"][0].lower() + detail["msg"][1:]
                return self.problem(location, f"{path}: {message}")


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
        DocumentError: it is too large, no YAML, too deep, full of aliases, has a key twice, or is not a mapping.

    """
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise DocumentError([Problem(source, 1, 1, f"larger than {MAX_TEXT_BYTES} bytes")])
    try:
        aliases = 0
        depth = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            mark = event.start_mark or yaml.Mark("", 0, 0, 0, None, 0)
            aliases += isinstance(event, yaml.AliasEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if aliases > MAX_ALIASES or depth > MAX_DEPTH:
                what = f"more than {MAX_ALIASES} aliases" if aliases > MAX_ALIASES else f"deeper than {MAX_DEPTH}"
                raise DocumentError([Problem(source, mark.line + 1, mark.column + 1, what)])
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.CSafeLoader) if node is not None]
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        line, column = (at.line + 1, at.column + 1) if at is not None else (1, 1)
        raise DocumentError([Problem(source, line, column, f"not YAML: {error.problem}")]) from None
    except yaml.YAMLError as error:
        raise DocumentError([Problem(source, 1, 1, f"not YAML: {error}")]) from None
    return [_document(node, source) for node in nodes]


def _document(node: yaml.Node, source: str) -> Document:
    positions: dict[Location, tuple[int, int]] = {}
    problems: list[Problem] = []
    constructor = yaml.CSafeLoader("")

    def build(node: yaml.Node, location: Location) -> Any:
        mark = node.start_mark
        positions[location] = (mark.line + 1, mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                at = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
                if not isinstance(key_node, yaml.ScalarNode):
                    problems.append(Problem(source, *at, "a key must be plain text"))
                    continue
                key: str = key_node.value
                if key in mapping:
                    problems.append(Problem(source, *at, f"{key!r} stands here twice"))
                positions[(*location, f"key:{key}")] = at
                mapping[key] = build(value_node, (*location, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [build(each, (*location, index)) for index, each in enumerate(node.value)]
        try:
            return constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            problems.append(Problem(source, mark.line + 1, mark.column + 1, f"cannot be read: {error}"))
            return None

    content = build(node, ())
    if not isinstance(content, dict):
        problems.append(Problem(source, *positions[()], "expected a mapping with apiVersion, kind, metadata and spec"))
    if problems:
        raise DocumentError(problems)
    return Document(source, content, positions)


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


def check_kind(document: Document, kind: str) -> None:
    """Refuse a document of another kind or version, before its fields confuse anybody.

    Raises:
        DocumentError: it is not of `kind`.

    """
    if document.content.get("apiVersion") != API_VERSION:
        raise DocumentError([document.problem(("apiVersion",), f"apiVersion: expected {API_VERSION}")])
    if document.kind != kind:
        raise DocumentError([document.problem(("kind",), f"kind: expected {kind}, found {document.kind or 'none'}")])
