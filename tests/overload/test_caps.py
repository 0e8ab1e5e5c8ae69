"""Caps: beside naive counting."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.overload import Caps


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.sampled_from("ab"))))
def test_no_name_has_more_than_it_may_and_each_as_many_as_it_may(most: int, script: list[tuple[bool, str]]) -> None:
    caps, counts = Caps(most, 1), Counter[str]()
    for begin, name in script:
        if begin:
            assert caps.begin(name) == (counts[name] < most)
            counts[name] = min(most, counts[name] + 1)
        elif counts[name]:
            caps.end(name)
            counts[name] -= 1


def test_those_that_wait_are_bounded_by_themselves() -> None:
    caps = Caps(10, 2)
    assert [caps.wait("a"), caps.wait("a"), caps.wait("a"), caps.wait("b")] == [True, True, False, True]
    caps.go_on("a")
    assert caps.wait("a")
