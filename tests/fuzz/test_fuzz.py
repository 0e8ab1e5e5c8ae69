"""Nothing that a stranger, an agent or an editor sends breaks a promise: what was found before, and some at random."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import CORPUS
from tests.fuzz.targets import TARGETS

SEEDS = {name: sorted((CORPUS / name).iterdir()) for name in TARGETS}
KEPT = [(name, path) for name, paths in SEEDS.items() for path in paths]
EXAMPLES = 100


@pytest.mark.parametrize(("name", "path"), KEPT, ids=[f"{name}/{path.name}" for name, path in KEPT])
def test_what_is_kept_breaks_no_promise(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


@st.composite
def mutants(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the `seeds` with a few things done to it, as libFuzzer would: cut, doubled, spliced, overwritten."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 64)))
        match draw(st.integers(0, 3)):
            case 0:
                data[start:end] = draw(st.binary(max_size=8))
            case 1:
                data[start:start] = data[start:end] * draw(st.integers(1, 4))
            case 2:
                other = draw(st.sampled_from(seeds))
                data[start:end] = other[draw(st.integers(0, len(other))) :][:64]
            case _:
                if start < len(data):
                    data[start] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chosen=st.data())
def test_mutants_of_what_is_kept_break_no_promise(name: str, chosen: st.DataObject) -> None:
    TARGETS[name](chosen.draw(mutants([path.read_bytes() for path in SEEDS[name]])))
