"""What the chart's values.yaml says of each value, as a JSON schema and as a table.

A value's description is the comment above it that begins with ``--``; a line ``@schema {…}`` adds to what is seen of
its default, and ``@fields`` goes on with the description, for a value whose parts have no defaults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema

from gateway.control.config import GatewaySpec

BEGIN, END = "<!-- values: written by make chart -->", "<!-- end of values -->"
DURATION = {"type": "string", "pattern": r"^\d{1,9}(\.\d{1,9})?(ms|s|m|h)$"}
QUANTITY = {"type": ["string", "integer"], "pattern": r"^[0-9.]+([KMGTPE]i?|[mkun])?$"}
OURS = frozenset(
    {"admin", "connectAuthority", "identity", "keys", "kubernetes", "listeners", "members", "policies", "redis"}
)
"""Of the Gateway document: other values say it."""
OUR_LIMITS = frozenset({"drainDelay", "drainTimeout"})
NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "gt", "ge", "lt", "le"})
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@dataclass(frozen=True)
class Value:
    """One value, and what is said of it."""

    path: tuple[str, ...]
    default: Any
    description: str
    """Empty for a group that needs none."""
    extra: dict[str, Any]
    """What ``@schema`` says."""
    parts: list[Value] = field(default_factory=list)
    """Of a group."""


def values(text: str) -> list[Value]:
    """What `text`, the values.yaml, says.

    Raises:
        ValueError: a value without a description.

    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return list(_values(node, yaml.safe_load(text), text.splitlines(), ()))


def _values(node: Any, content: dict[str, Any], lines: list[str], above: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        path = (*above, key.value)
        description, extra = _said(lines, key.start_mark.line, path)
        default = content[key.value]
        free = not isinstance(default, dict) or not default or extra or value.flow_style
        parts = [] if free else list(_values(value, default, lines, path))
        if free and not description:
            raise ValueError(f"{'.'.join(path)} has no description")
        yield Value(path, default, description, extra, parts)


def _said(lines: list[str], line: int, path: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    comment: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        comment.insert(0, lines[line].lstrip().removeprefix("#").strip())
    begins = next((at for at, each in enumerate(comment) if each.startswith("-- ")), len(comment))
    words: list[str] = []
    extra: dict[str, Any] = {}
    for each in comment[begins:]:
        if each.startswith("@schema "):
            try:
                extra |= json.loads(each.removeprefix("@schema "))
            except ValueError as error:
                raise ValueError(f"{'.'.join(path)}: {error}") from None
        else:
            words.append(each.removeprefix("-- ").removeprefix("@fields "))
    return " ".join(words), extra


def schema(found: list[Value]) -> dict[str, Any]:
    """The schema of all values: nothing else may be given."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart phoenixflight-gateway",
        **_group(found),
        "$defs": {"duration": DURATION, "quantity": QUANTITY, "anything": {"type": "object"}, **_gateway()},
    }


def _group(found: list[Value]) -> dict[str, Any]:
    # Of a chart that another depends on, Helm gives `global` to all.
    properties = {each.path[-1]: _property(each) for each in found}
    if len(found[0].path) == 1:
        properties["global"] = {"type": "object"}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _property(value: Value) -> dict[str, Any]:
    if value.parts:
        return _group(value.parts)
    seen: dict[str, Any] = {"description": value.description, "default": value.default}
    if not {"$ref", "type", "enum"} & set(value.extra):
        seen["type"] = TYPES[type(value.default)]
    return seen | value.extra


class _AsWritten(GenerateJsonSchema):
    """Of what is read from text, the schema is the text's."""

    def function_before_schema(self, schema: Any) -> Any:
        name = getattr(schema["function"]["function"], "__name__", "")
        if name == "_seconds":
            return dict(DURATION)
        inner = super().function_before_schema(schema)
        return inner if inner.get("type") in ("object", "array") and name == "<lambda>" else {"type": "string"}

    def is_instance_schema(self, schema: Any) -> Any:
        return {"type": "string"}


def _gateway() -> dict[str, Any]:
    """``gateway``, and what it refers to: the Gateway document's settings, but for those that other values say."""
    made = GatewaySpec.model_json_schema(by_alias=True, schema_generator=_AsWritten, ref_template="#/$defs/{model}")
    found: dict[str, Any] = made.pop("$defs")
    made["properties"] = {name: each for name, each in made["properties"].items() if name not in OURS}
    del made["required"]
    limits = found["Limits"]["properties"]
    for name in OUR_LIMITS:
        del limits[name]
    found["gateway"] = made
    return _used(found)


def _used(found: dict[str, Any]) -> dict[str, Any]:
    """Those of `found` that ``gateway`` leads to, without what only repeats their names."""
    used: dict[str, Any] = {}
    waiting = ["gateway"]
    while waiting:
        name = waiting.pop()
        if name not in used:
            used[name] = _plain(found[name])
            waiting += re.findall(r'"#/\$defs/([A-Za-z0-9_]+)"', json.dumps(found[name]))
    return dict(sorted(used.items()))


def _plain(node: Any) -> Any:
    """`node` without titles, which repeat names, and what is said of numbers and defaults where text is written."""
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    is_schema = any(isinstance(node.get(key), str | list) for key in ("type", "$ref", "anyOf", "enum", "const"))
    text = node.get("type") == "string"
    return {
        key: _plain(each)
        for key, each in node.items()
        if not (is_schema and (key in ("title", "default") or (text and key in NUMBERS)))
    }


def page(text: str, found: list[Value]) -> str:
    """`text`, the documentation, with the table of values as it should be."""
    before, _, rest = text.partition(BEGIN)
    rows = ["| value | default | |", "|---|---|---|"]
    for each in _flat(found):
        default = json.dumps(each.default, ensure_ascii=False).replace("|", "\\|")
        description = each.description.replace("|", "\\|")
        rows.append(f"| `{'.'.join(each.path)}` | `{default}` | {description} |")
    return f"{before}{BEGIN}\n\n" + "\n".join(rows) + f"\n\n{END}{rest.partition(END)[2]}"


def _flat(found: list[Value]) -> Iterator[Value]:
    for each in found:
        if each.parts:
            yield from _flat(each.parts)
        else:
            yield each


def copies(root: Path, chart: Path) -> dict[Path, bytes]:
    """The chart's files that are copies, and what should be in them."""
    wanted = {"rules": "prometheus/*.yaml", "dashboards": "grafana/*.json"}
    return {
        chart / "files" / folder / each.name: each.read_bytes()
        for folder, names in wanted.items()
        for each in sorted((root / "observability").glob(names))
    }
