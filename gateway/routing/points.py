"""Where the virtual nodes of agents lie on the unsigned 64-bit circle.  Pure.

Point `number` of an agent is ``xxh3_64(xxh3_64(name), seed=number)``: it depends on the agent's name alone.  The inner
hash makes eight bytes of a name, and of eight bytes XXH3 makes 64 bits in a handful of operations, which numpy does for
all points at once: faster by far than a call of the library for each, and without the GIL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

Points = npt.NDArray[np.uint64]
Owners = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]

# XXH3_len_4to8_64b and XXH3_rrmxmx of https://github.com/Cyan4973/xxHash, xxhash.h, for an input of eight bytes.
_LENGTH = np.uint64(8)
_PRIME_MX2 = np.uint64(0x9FB21C651E98DF25)
_SECRET = np.uint64(0xC73AB174C5ECD5A2)
"""Bytes 8 to 16 of the default secret, xor bytes 16 to 24."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Points, and the number of whose each is."""

    points: Points
    owners: Owners

    def sorted(self) -> Marks:
        """By point; those that coincide stay in the order they are in."""
        order = np.argsort(self.points)
        points = self.points.take(order)
        if np.any(points[1:] == points[:-1]):
            # Hardly ever, and the stable sort takes twice as long.
            order = np.argsort(self.points, kind="stable")
        return Marks(points, self.owners.take(order))


def points_of(names: Sequence[str], counts: Counts) -> Marks:
    """The first so many points of each of `names` as `counts` says, at least one, one name after the other."""
    ends = counts.cumsum()
    starts = ends - counts
    # Like np.repeat, which holds the GIL.
    owners = np.zeros(int(ends[-1]) if names else 0, np.uint32)
    owners[starts[1:]] = 1
    np.cumsum(owners, out=owners)
    numbers = np.arange(len(owners))
    numbers -= starts.take(owners)
    seeds = np.arange(counts.max(initial=0), dtype=np.uint64)
    flips = _SECRET - (seeds ^ (seeds.astype(np.uint32).byteswap().astype(np.uint64) << np.uint64(32)))
    points = np.fromiter((_input(name) for name in names), np.uint64, len(names)).take(owners)
    points ^= flips.take(numbers)
    points ^= _rotated(points, 49) ^ _rotated(points, 24)
    points *= _PRIME_MX2
    points ^= (points >> np.uint64(35)) + _LENGTH
    points *= _PRIME_MX2
    points ^= points >> np.uint64(28)
    return Marks(points, owners)


def _input(name: str) -> int:
    """The canonical digest of `name`, as XXH3 reads eight bytes: little-endian halves, the first one on top."""
    digest = xxh3_64_intdigest(name.encode()).to_bytes(8, "big")
    return int.from_bytes(digest[:4], "little") << 32 | int.from_bytes(digest[4:], "little")


def _rotated(words: Points, by: int) -> Points:
    return words << np.uint64(by) | words >> np.uint64(64 - by)
