"""Reads memory and the event loop's lag, and tells the level that follows."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from gateway.overload.levels import LAG_STEPS, MEMORY_STEPS, Level, next_level, smoothed
from gateway.overload.spec import OverloadSpec

log = logging.getLogger(__name__)

LAG_INTERVAL_S = 0.1
MEMORY_EVERY = 5
"""Intervals between two looks at memory."""
_CGROUPS = Path("/sys/fs/cgroup")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Memory:
    """How much memory is used, and how much there is."""

    def __init__(self, max_bytes: int | None, cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")):
        """Find what bounds this process: `max_bytes`, else its cgroup (version 2), else the machine."""
        self._cgroup: Path | None = None
        if max_bytes is None:
            self._cgroup, max_bytes = _bounding_cgroup(cgroups, membership)
        self.max_bytes = max_bytes or _PAGE * os.sysconf("SC_PHYS_PAGES")

    def used_bytes(self) -> int:
        """What is used: by the cgroup that bounds this process, else the process's resident memory.

        Files that nobody has looked at lately do not count: the kernel takes their pages back before it kills.

        Raises:
            OSError: it cannot be read.

        """
        if self._cgroup is None:
            return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
        used = int((self._cgroup / "memory.current").read_text())
        for line in (self._cgroup / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return used - int(line.split()[1])
        return used


def _bounding_cgroup(cgroups: Path, membership: Path) -> tuple[Path | None, int | None]:
    """The nearest cgroup with a bound on memory, from this process's own upwards, and the bound in bytes."""
    try:
        own = next(line[3:] for line in membership.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None, None
    folder = cgroups / own.lstrip("/")
    for each in (folder, *folder.parents):
        if not each.is_relative_to(cgroups):
            break
        try:
            text = (each / "memory.max").read_text().strip()
        except OSError:
            continue
        if text != "max":
            return each, int(text)
    return None, None


class Monitor:
    """Looks every now and then; tells each change of the level."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: OverloadSpec, on_level: Callable[[Level], None]) -> None:
        self._loop = loop
        self._on_level = on_level
        self._memory = Memory(spec.max_memory_bytes)
        self._max_lag_s = spec.max_lag_s
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._looks = 0
        self._by_lag = self._by_memory = Level.NORMAL
        self.level = Level.NORMAL
        self.lag_s = 0.0
        """How late the event loop is, smoothed."""
        self.memory_share = 0.0
        """Of what there is, how much is used."""

    def retune(self, spec: OverloadSpec) -> None:
        """Go by other bounds from the next look on."""
        self._memory = Memory(spec.max_memory_bytes)
        self._max_lag_s = spec.max_lag_s

    def start(self) -> None:
        """Begin to look."""
        self._due = perf_counter() + LAG_INTERVAL_S
        self._timer = self._loop.call_later(LAG_INTERVAL_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = perf_counter()
        self.lag_s = smoothed(self.lag_s, max(0.0, now - self._due))
        self._by_lag = next_level(self._by_lag, self.lag_s / self._max_lag_s, LAG_STEPS)
        if self._looks % MEMORY_EVERY == 0:
            try:
                self.memory_share = self._memory.used_bytes() / self._memory.max_bytes
            except (OSError, ValueError) as error:
                log.warning("how much memory is used cannot be read: %s", error)
            self._by_memory = next_level(self._by_memory, self.memory_share, MEMORY_STEPS)
        self._looks += 1
        level = max(self._by_lag, self._by_memory)
        if level is not self.level:
            self.level = level
            log.warning(
                "overload level %s: memory at %.0f %%, the event loop %.0f ms late",
                level.name,
                100 * self.memory_share,
                1000 * self.lag_s,
            )
            self._on_level(level)
        self._due = perf_counter() + LAG_INTERVAL_S
        self._timer = self._loop.call_later(LAG_INTERVAL_S, self._look)
