"""The sorted points of a ring, each with the number of whose it is: found fast, and changed by what changes.  Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gateway.routing.points import Marks

_Number = TypeVar("_Number", np.uint32, np.uint64)


class Circle:
    """Points in their order, 12 bytes each, and an index of some 4 bytes for every twelve of them.  Immutable."""

    __slots__ = ("_index", "_points", "_shift", "marks", "owners")

    def __init__(self, marks: Marks) -> None:
        """`marks` are sorted."""
        self.marks = marks
        # Python reads one number faster from a memoryview than from an array of numpy's.
        self._points: memoryview[int] = marks.points.data
        self.owners: memoryview[int] = marks.owners.data
        bits = max(0, len(self.owners).bit_length() - 4)
        self._shift = 64 - bits
        firsts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(self._shift) if bits else np.zeros(1, np.uint64)
        index = np.append(np.searchsorted(marks.points, firsts), len(self.owners))
        self._index: memoryview[int] = index.astype(np.uint32).data
        """By their highest bits, how many points are below."""

    def __len__(self) -> int:
        return len(self.owners)

    def at(self, position: int) -> int:
        """Where the first point at or after `position` stands; the length if there is none before the end."""
        index, part = self._index, position >> self._shift
        return bisect_left(self._points, position, index[part], index[part + 1])

    def changed(self, lost: Marks, won: Marks) -> Circle | None:
        """A copy less `lost`, plus `won`; ``None`` where two points coincide, which only sorting all puts right."""
        here, lost, won = self.marks, lost.sorted(), won.sorted()
        drops, puts = np.searchsorted(here.points, lost.points), np.searchsorted(here.points, won.points)
        if (
            not np.array_equal(here.owners[drops], lost.owners)
            or not np.all(lost.points[1:] > lost.points[:-1])
            or np.any(here.points[np.minimum(puts, len(self) - 1)] == won.points)
        ):
            return None
        out = len(won.points)
        cuts = sorted([(at, put) for put, at in enumerate(puts.tolist())] + [(at, out) for at in drops.tolist()])
        return Circle(Marks(_spliced(here.points, won.points, cuts), _spliced(here.owners, won.owners, cuts)))


def _spliced(
    old: npt.NDArray[_Number], new: npt.NDArray[_Number], cuts: Sequence[tuple[int, int]]
) -> npt.NDArray[_Number]:
    """`old`, cut at each of `cuts`: a number of `new` is put in, or where none has that place, the next is left out."""
    pieces = []
    start = 0
    for at, put in cuts:
        pieces.append(old[start:at])
        pieces.append(new[put : put + 1])
        start = at if put < len(new) else at + 1
    pieces.append(old[start:])
    return np.concatenate(pieces)
