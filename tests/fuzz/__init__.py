"""Fuzzing: what a stranger, an agent or an editor may send, and what must hold whatever that is.

Each target is a plain function of bytes that raises only where a promise is broken.  The suite replays the kept
inputs (`corpus/`) and tries some at random; `make fuzz` looks for more, led by coverage.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    """`data` as a socket may give it: cut at places that `seed` decides."""
    chance = random.Random(seed)
    at = 0
    while at < len(data):
        size = chance.choice((1, 1, 2, 3, 7, 20, 100, 1000))
        yield data[at : at + size]
        at += size
