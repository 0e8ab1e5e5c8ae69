"""CPU limits like a container's, by control groups (cgroups(7), CFS bandwidth control).

Version 1 is what this was made on; version 2 is by the kernel's documentation, where root's `cpu` controller is on.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOTS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))
"""Of version 1, and of version 2."""
_PERIOD_US = 10_000
"""Short, so that a process that has used up its time is away for some milliseconds only."""


def possible() -> bool:
    """Whether this machine lets us limit a process."""
    # Tried on another than this one, which belongs where it is.
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            with limited(other.pid, 1.0):
                return True
        except OSError:
            return False
        finally:
            other.kill()


@contextmanager
def limited(pid: int, cores: float) -> Iterator[None]:
    """Hold a process, with all its threads, to the CPU time of so many cores.

    Raises:
        OSError: the machine does not let us.

    """
    root = next((root for root in _ROOTS if root.is_dir()), _ROOTS[-1])
    group = root / f"phoenixflight-bench-{pid}"
    group.mkdir()
    try:
        quota = round(cores * _PERIOD_US)
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_period_us").write_text(f"{_PERIOD_US}")
            (group / "cpu.cfs_quota_us").write_text(f"{quota}")
        else:
            # What is not there cannot be made there, either.
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        (group / "cgroup.procs").write_text(f"{pid}")
        yield
    finally:
        for held in (group / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(held)
        group.rmdir()
