"""Globs: which texts they match, which others they include, and the index over them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import PrincipalPattern, parse_principal_pattern
from gateway.policy.patterns import CapabilityPattern, GlobIndex, parse_capability_pattern


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("code.execute", "code.execute", True),
        ("code.execute", "code.executed", False),
        ("code.*", "code.execute.fast", True),
        ("code.*", "codexexecute", False),
        ("*", "anything.at-all", True),
        ("*.python", "lang.python", True),
        ("*.python", "python", False),
        ("a*c", "abc", True),
    ],
)
def test_a_star_covers_any_run_of_characters(pattern: str, name: str, covered: bool) -> None:
    assert parse_capability_pattern(pattern).matches(name) is covered


def test_a_row_of_stars_is_one_star_and_as_fast() -> None:
    assert not parse_capability_pattern("*" * 200 + "b").matches("a" * 200)


@pytest.mark.parametrize(
    ("wide", "narrow", "included"),
    [
        ("code.*", "code.execute", True),
        ("code.*", "code.*.fast", True),
        ("code.*", "*", False),
        ("*.python", "lang.*", False),
        ("*", "*.*", True),
    ],
)
def test_a_capability_pattern_includes_narrower_ones(wide: str, narrow: str, included: bool) -> None:
    assert parse_capability_pattern(wide).includes(parse_capability_pattern(narrow)) is included


@pytest.mark.parametrize(
    ("wide", "narrow", "included"),
    [
        ("spiffe://a", "spiffe://a/ns/**", True),
        ("spiffe://a", "spiffe://a", True),
        ("spiffe://a/**", "spiffe://a", False),
        ("spiffe://a/**", "spiffe://a/*/x", True),
        ("spiffe://a/*", "spiffe://a/**", False),
        ("spiffe://a/*/*", "spiffe://a/**", False),
        ("spiffe://a/ns/*", "spiffe://a/ns/x-*", True),
        ("spiffe://a/ns/x-*", "spiffe://a/ns/*", False),
        ("spiffe://a", "spiffe://ab/x", False),
    ],
)
def test_a_principal_pattern_includes_narrower_ones(wide: str, narrow: str, included: bool) -> None:
    assert parse_principal_pattern(wide).includes(parse_principal_pattern(narrow)) is included


capability_patterns = st.text("ab.*", min_size=1, max_size=6).map(lambda text: parse_capability_pattern("a" + text))
capabilities = st.text("ab.", max_size=6).map(lambda text: "a" + text)
paths = st.lists(st.text("ab*", min_size=1, max_size=3), max_size=3)
principal_patterns = paths.map(lambda parts: parse_principal_pattern("/".join(["spiffe://a", *parts])))
principals = st.lists(st.text("ab", min_size=1, max_size=2), max_size=3).map(lambda x: "/".join(["spiffe://a", *x]))


@given(capability_patterns, capability_patterns, capabilities)
def test_what_is_included_matches_nothing_more(wide: CapabilityPattern, narrow: CapabilityPattern, name: str) -> None:
    assert not (wide.includes(narrow) and narrow.matches(name)) or wide.matches(name)


@given(principal_patterns, principal_patterns, principals)
def test_an_included_caller_is_covered(wide: PrincipalPattern, narrow: PrincipalPattern, caller: str) -> None:
    assert not (wide.includes(narrow) and narrow.matches(caller)) or wide.matches(caller)


@given(st.lists(principal_patterns, max_size=12), principals, principal_patterns)
def test_the_index_finds_what_asking_each_pattern_finds(
    patterns: list[PrincipalPattern], caller: str, other: PrincipalPattern
) -> None:
    index = GlobIndex((pattern, number) for number, pattern in enumerate(patterns))
    matching = sum(1 << number for number, pattern in enumerate(patterns) if pattern.matches(caller))
    including = sum(1 << number for number, pattern in enumerate(patterns) if pattern.includes(other))
    assert (index.matching(caller), index.including(other)) == (matching, including)
