"""What the soak comes to: is it flat, is every failure explained, is each packet in the record exactly once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

WARM_UP_SHARE = 0.25
MAX_GROWTH = {"rss_bytes": 16 * 1024 * 1024, "descriptors": 64.0, "tasks": 16.0}
"""What the straight line fitted to the samples after the warm-up may rise, from its first to its last."""
MAX_LEFT = {"descriptors": 12.0, "tasks": 3.0, "in_flight": 0.0}
"""What there may be more of, when everybody has gone, than before anybody came."""
KILL_MARGIN_S = 2.0
"""So long after an agent came back, failures are still its doing: packets that it had, retries, its ejection."""
OF_A_KILL = {"POST": {0, 502, 503}, "GET": {0, 502, 503}, "PUT": {502, 503}}
"""What may become of packets by their method; a GET may be a stream that was cut."""
CANCELLED, UNTAKEN = -1, -2
"""The caller broke it off; the gateway closed a connection and took no notice of it any more."""
_FLIGHT_ID = re.compile(r'"flight_id":"([^"]*)"')


class Ended(NamedTuple):
    """What a caller told of a packet."""

    at: float
    packet: str
    method: str
    status: int


def growth(times: list[float], values: list[float]) -> float:
    """What the line fitted to `values` rises over the time after the warm-up."""
    begin = int(len(times) * WARM_UP_SHARE)
    at, seen = np.array(times[begin:]), np.array(values[begin:])
    slope, _ = np.polyfit(at - at[0], seen, 1)
    return float(slope * (at[-1] - at[0]))


def read(paths: Iterable[Path]) -> list[Ended]:
    """The lines of the callers."""
    lines = (line.split() for path in paths for line in path.read_text().splitlines())
    return [Ended(float(at), packet, method, int(status)) for at, packet, method, status in lines]


def recorded(access_log: Path) -> Counter[str]:
    """How many lines of the log each packet has."""
    with access_log.open() as lines:
        return Counter(found[1] for line in lines if (found := _FLIGHT_ID.search(line)))


def turned_away(ended: list[Ended], lines: Counter[str]) -> list[Ended]:
    """Packets that were answered 503 and are in no line: at the door, where nothing is begun, they are only counted."""
    return [each for each in ended if each.status == 503 and not lines[each.packet]]


def unexplained(ended: list[Ended], kills: list[tuple[float, float]]) -> list[Ended]:
    """Packets that failed, and not because their caller left or an agent was killed."""
    failed = [each for each in ended if each.status not in (200, CANCELLED, UNTAKEN)]
    return [
        each
        for each in failed
        if each.status not in OF_A_KILL[each.method]
        or not any(began - 0.1 <= each.at <= until + KILL_MARGIN_S for began, until in kills)
    ]


def misrecorded(ended: list[Ended], lines: Counter[str]) -> list[str]:
    """What is not in the log exactly once; packets that were broken off at once may never have arrived."""
    wrong = [f"{each.packet}: {lines[each.packet]} lines" for each in ended if not _well(each, lines)]
    known = {each.packet for each in ended}
    return wrong + [f"{packet}: nobody sent it" for packet in lines if packet not in known]


def _well(each: Ended, lines: Counter[str]) -> bool:
    if each.status == UNTAKEN:
        return not lines[each.packet]
    least = 0 if each.status in (CANCELLED, 0) else 1
    return least <= lines[each.packet] <= 1
