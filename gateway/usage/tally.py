"""What JSON documents say of usage, added up over one answer.

OpenAI's chat completions (``usage.total_tokens``, in a stream in its last chunk) and responses (``response.usage`` of
the last event), Anthropic's messages (``message_start`` and ``message_delta``, whose numbers are totals so far), and
A2A's results and events, whose metadata may have a ``usage``.  Of several numbers for the same the greatest counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

MAX_AMOUNT: Final = 999_999_999_999_999
"""As an Integer may have (RFC 9651 section 3.3.1)."""
MAX_UNITS: Final = 16
TOKENS: Final = "tokens"

_INPUT: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Anthropic counts what it read from and wrote to its cache beside the input; OpenAI has one number for all of it."""
_COUNTS: Final = (TOKENS, "total_tokens", "prompt_tokens", "completion_tokens", "output_tokens", *_INPUT)
_A2A_PARTS: Final = ("task", "statusUpdate", "artifactUpdate", "message", "msg")
"""What a result or an event of A2A 1.0 wraps."""


class Tally:
    """The sum over the documents of one answer."""

    __slots__ = ("_before", "_counts", "_id", "_others")

    def __init__(self) -> None:
        self._before = 0
        """Tokens of the model's answers before the one that is being told of."""
        self._id = ""
        self._counts: dict[str, int] = {}
        self._others: dict[str, int] = {}
        """Of other units."""

    @property
    def spent(self) -> dict[str, int]:
        """By unit; empty while nothing has been told."""
        spent = dict(self._others)
        tokens = self._before + _tokens(self._counts)
        if tokens or self._counts:
            spent[TOKENS] = tokens
        return spent

    def add(self, document: object) -> bool:
        """Take in one document; whether it told of usage."""
        if not isinstance(document, dict):
            return False
        if document.get("type") == "message_start":
            self._next("")
        told = False
        for answer in (document, _member(document, "response"), _member(document, "message")):
            usage = _member(answer, "usage")
            if usage:
                told = True
                name = answer.get("id")
                if isinstance(name, str) and name != self._id:
                    self._next(name)
                self._raise(usage)
        for usage in _a2a(document):
            told = True
            self._raise(usage)
            self._raise_others(usage)
        return told

    def _next(self, name: str) -> None:
        """The numbers of another answer of a model follow."""
        if self._id or not name:
            self._before += _tokens(self._counts)
            self._counts = {}
        self._id = name

    def _raise(self, usage: Mapping[str, object]) -> None:
        for name in _COUNTS:
            amount = _amount(usage.get(name))
            if amount is not None:
                self._counts[name] = max(self._counts.get(name, 0), amount)

    def _raise_others(self, usage: Mapping[str, object]) -> None:
        for name, value in usage.items():
            amount = _amount(value)
            known = name in self._others or len(self._others) < MAX_UNITS
            if amount is not None and known and not name.endswith(TOKENS):
                self._others[name] = max(self._others.get(name, 0), amount)


def _tokens(counts: Mapping[str, int]) -> int:
    for whole in (TOKENS, "total_tokens"):
        if whole in counts:
            return counts[whole]
    if "prompt_tokens" in counts or "completion_tokens" in counts:
        return counts.get("prompt_tokens", 0) + counts.get("completion_tokens", 0)
    return counts.get("output_tokens", 0) + sum(counts.get(name, 0) for name in _INPUT)


def _amount(value: object) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)  # as protocol buffers write the whole numbers of a Struct, which is what A2A's metadata are
    return value if type(value) is int and 0 <= value <= MAX_AMOUNT else None


def _member(document: Mapping[str, object], name: str) -> dict[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _a2a(document: dict[str, object]) -> Iterator[dict[str, object]]:
    """The usages in the metadata of a JSON-RPC result or event, or of one over HTTP+JSON."""
    result = _member(document, "result") if "jsonrpc" in document else document
    for part in (result, *(_member(result, name) for name in _A2A_PARTS)):
        for each in (part, _member(part, "artifact"), _member(_member(part, "status"), "message")):
            usage = _member(_member(each, "metadata"), "usage")
            if usage:
                yield usage
