"""The sorted points of a ring, each with the number of whose it is, and how they change.  Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.routing.points import Points

Owners = npt.NDArray[np.uint32]

_COPIED_AT_ONCE = 1 << 18
"""Bytes.  Copying holds the GIL, so it goes on in pieces."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Points in any order, and whose they are."""

    points: Points
    owners: Owners

    def sorted(self) -> Marks:
        """By point; those that coincide stay in the order they are in."""
        order = np.argsort(self.points, kind="stable")
        return Marks(self.points[order], self.owners[order])


@dataclass(frozen=True, slots=True)
class Circle:
    """Sorted points, 12 bytes each.  Never changed: arrays because `bisect` reads them faster than numpy's own."""

    points: array[int]
    owners: array[int]

    @classmethod
    def of(cls, marks: Marks) -> Circle:
        """Sort `marks`: the one costly step, outside the GIL."""
        ordered = marks.sorted()
        return cls(
            _joined(array("Q"), [ordered.points.data]),
            _joined(array("I"), [ordered.owners.data]),
        )

    def marks(self) -> Marks:
        """The same for numpy, without a copy."""
        return Marks(np.frombuffer(self.points, np.uint64), np.frombuffer(self.owners, np.uint32))

    def spliced(self, lost: Marks, won: Marks) -> Circle | None:
        """A copy less `lost`, plus `won`; ``None`` where two points coincide, which only sorting all puts right."""
        here, lost, won = self.marks(), lost.sorted(), won.sorted()
        drops, puts = np.searchsorted(here.points, lost.points), np.searchsorted(here.points, won.points)
        if (
            not np.array_equal(here.owners[drops], lost.owners)
            or not np.all(lost.points[1:] > lost.points[:-1])
            or np.any(here.points[np.minimum(puts, len(here.points) - 1)] == won.points)
        ):
            return None
        cuts = sorted([(at, put) for put, at in enumerate(puts.tolist())] + [(at, -1) for at in drops.tolist()])
        return Circle(
            _joined(array("Q"), _pieces(memoryview(self.points), won.points.data, cuts)),
            _joined(array("I"), _pieces(memoryview(self.owners), won.owners.data, cuts)),
        )


def _pieces(old: memoryview[int], new: memoryview[int], cuts: Sequence[tuple[int, int]]) -> list[memoryview[int]]:
    """`old` cut up: at each place something of `new` is put in, or (-1) what stands there is left out."""
    pieces = []
    start = 0
    for at, put in cuts:
        pieces.append(old[start:at])
        if put < 0:
            start = at + 1
        else:
            pieces.append(new[put : put + 1])
            start = at
    pieces.append(old[start:])
    return pieces


def _joined(whole: array[int], pieces: Sequence[memoryview[int]]) -> array[int]:
    for piece in pieces:
        octets = piece.cast("B")
        for start in range(0, len(octets), _COPIED_AT_ONCE):
            whole.frombytes(octets[start : start + _COPIED_AT_ONCE])
    return whole
