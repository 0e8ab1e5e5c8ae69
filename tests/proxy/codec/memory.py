"""What this process takes of memory."""

from __future__ import annotations


def resident_bytes() -> int:
    """Now, by whole pages."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
