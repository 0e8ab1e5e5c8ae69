"""How much may be under way, and wait, for one name.  Pure."""

from __future__ import annotations


class Caps:
    """Counts by name; holds no more names than there is under way."""

    __slots__ = ("_in_flight", "_max_in_flight", "_max_waiting", "_waiting")

    def __init__(self, max_in_flight: int, max_waiting: int) -> None:
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._in_flight: dict[str, int] = {}
        self._waiting: dict[str, int] = {}

    def retune(self, max_in_flight: int, max_waiting: int) -> None:
        """Go by other bounds; what is there stays."""
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting

    def begin(self, name: str) -> bool:
        """One more is under way, if it may be."""
        return _more(self._in_flight, name, self._max_in_flight)

    def end(self, name: str) -> None:
        """One less is under way."""
        _less(self._in_flight, name)

    def wait(self, name: str) -> bool:
        """One of those under way waits, if it may."""
        return _more(self._waiting, name, self._max_waiting)

    def go_on(self, name: str) -> None:
        """One of those that wait does so no longer."""
        _less(self._waiting, name)


def _more(counts: dict[str, int], name: str, most: int) -> bool:
    count = counts.get(name, 0)
    if count >= most:
        return False
    counts[name] = count + 1
    return True


def _less(counts: dict[str, int], name: str) -> None:
    left = counts[name] - 1
    if left:
        counts[name] = left
    else:
        del counts[name]
