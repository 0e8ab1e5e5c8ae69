"""Globs over capabilities, and an index that finds the matching ones among thousands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from gateway.identity import PrincipalPattern

_PATTERN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")


@dataclass(frozen=True, slots=True)
class CapabilityPattern:
    """A glob over capabilities: ``*`` is any run of characters, dots included."""

    text: str

    def matches(self, name: str) -> bool:
        """Whether the capability `name` is covered."""
        return _regex(self.text).fullmatch(name) is not None

    @property
    def literal(self) -> bool:
        """Whether it covers one capability only, its own text."""
        return "*" not in self.text

    def includes(self, other: CapabilityPattern) -> bool:
        """Whether every capability that `other` covers is covered."""
        # Only a star takes a star: in no pattern is it a character.
        return _regex(self.text).fullmatch(other.text) is not None


def parse_capability_pattern(text: object) -> CapabilityPattern:
    """Read a capability glob.

    Raises:
        ValueError: it has characters that no capability has.

    """
    if not isinstance(text, str) or _PATTERN.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a capability pattern, such as code.execute or code.*")
    return CapabilityPattern(text)


@lru_cache(maxsize=16_384)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", pattern))))


Glob = TypeVar("Glob", CapabilityPattern, PrincipalPattern)


class GlobIndex(Generic[Glob]):
    """Which of many globs match a text, as a bit mask of their owners.

    Only globs whose literal beginning the text shares are looked at, and each distinct one once.
    """

    __slots__ = ("_by_beginning", "_lengths", "_literals")

    def __init__(self, globs: Iterable[tuple[Glob, int]]) -> None:
        """Index `globs`, each with the number of its owner: the place of the owner's bit."""
        distinct: dict[str, Glob] = {}
        masks: dict[str, int] = {}
        for glob, owner in globs:
            distinct[glob.text] = glob
            masks[glob.text] = masks.get(glob.text, 0) | 1 << owner
        self._literals: dict[str, int] = {}
        self._by_beginning: dict[str, list[tuple[Glob, int]]] = {}
        for text, glob in distinct.items():
            if glob.literal:
                self._literals[text] = masks[text]
            else:
                self._by_beginning.setdefault(text.partition("*")[0], []).append((glob, masks[text]))
        self._lengths = sorted({len(beginning) for beginning in self._by_beginning})

    def matching(self, text: str) -> int:
        """The owners of globs that match `text`."""
        found = self._literals.get(text, 0)
        for length in self._lengths:
            for glob, owners in self._by_beginning.get(text[:length], ()):
                if glob.matches(text):
                    found |= owners
        return found

    def including(self, pattern: Glob) -> int:
        """The owners of globs that each cover all that `pattern` covers."""
        found = self._literals.get(pattern.text, 0)
        for length in self._lengths:
            for glob, owners in self._by_beginning.get(pattern.text[:length], ()):
                if glob.includes(pattern):
                    found |= owners
        return found
