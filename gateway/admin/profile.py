"""A sampling profile of one thread: looks at where it stands, so and so often a second.

It takes a thread of its own, which needs the interpreter for some microseconds a sample; the thread that is looked at
does nothing for it.  What runs in C shows as the Python function that called it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import PurePath
from time import perf_counter
from types import CodeType, FrameType
from typing import Final

MAX_SECONDS: Final = 60.0
MAX_HZ: Final = 500.0
MAX_FRAMES: Final = 100
"""Of a stack, the innermost ones."""
MAX_STACKS: Final = 20_000
"""Different ones; of more it is only counted how many samples there were."""
OTHERS: Final = ("(other stacks)",)

Samples = dict[tuple[str, ...], int]
"""How often each stack was seen, the outermost function first."""


def sample(thread: int, seconds: float, hz: float, stop: threading.Event) -> Samples:
    """Look at a thread.

    Args:
        thread: its identifier.
        seconds: how long.
        hz: how often a second; what is late is left out.
        stop: ends it before.

    """
    seen: Counter[tuple[CodeType, ...]] = Counter()
    begun = perf_counter()
    due = begun
    others = 0
    while not stop.is_set() and perf_counter() - begun < seconds:
        frame = sys._current_frames().get(thread)
        if frame is None:
            break
        stack = _stack(frame)
        del frame
        if stack in seen or len(seen) < MAX_STACKS:
            seen[stack] += 1
        else:
            others += 1
        due = max(due + 1 / hz, perf_counter())
        stop.wait(max(0.0, due - perf_counter()))
    named: Samples = {}
    for stack, count in seen.items():
        key = tuple(_name(code) for code in stack)
        named[key] = named.get(key, 0) + count
    if others:
        named[OTHERS] = others
    return named


def _stack(frame: FrameType) -> tuple[CodeType, ...]:
    codes: list[CodeType] = []
    at: FrameType | None = frame
    while at is not None and len(codes) < MAX_FRAMES:
        codes.append(at.f_code)
        at = at.f_back
    codes.reverse()
    return tuple(codes)


def _name(code: CodeType) -> str:
    return f"{code.co_qualname} ({short(code.co_filename)}:{code.co_firstlineno})"


def short(path: str) -> str:
    """The end of a file's path, from the package on: what tells files apart."""
    parts = PurePath(path).parts
    for root in ("site-packages", "gateway"):
        if root in parts:
            at = len(parts) - 1 - parts[::-1].index(root)
            return "/".join(parts[at + (root == "site-packages") :])
    return "/".join(parts[-2:])


def collapsed(samples: Samples, root: str = "") -> str:
    """One line for each stack, as flame graphs are made of: functions by ``;``, the number of samples after a blank.

    Args:
        samples: what was seen.
        root: stands before each stack, unless it is empty.

    """
    lines = []
    for stack, count in sorted(samples.items()):
        names = (root, *stack) if root else stack
        lines.append(f"{';'.join(name.replace(';', ':') for name in names)} {count}\n")
    return "".join(lines)


def read_collapsed(text: str, root: str = "") -> Samples:
    """What `collapsed` wrote, with `root` before each stack."""
    samples: Samples = {}
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        samples[(root, *stack.split(";")) if root else tuple(stack.split(";"))] = int(count)
    return samples


def speedscope(samples: Samples, hz: float) -> dict[str, object]:
    """A file for https://www.speedscope.app, in its sampled form.

    Args:
        samples: what was seen.
        hz: how many of them a second.

    """
    numbers: dict[str, int] = {}
    stacks = [[numbers.setdefault(name, len(numbers)) for name in stack] for stack in samples]
    weights = [count / hz for count in samples.values()]
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "phoenixflight-gateway",
        "name": "the gateway's event loop",
        "shared": {"frames": [{"name": name} for name in numbers]},
        "profiles": [
            {
                "type": "sampled",
                "name": "event loop",
                "unit": "seconds",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": stacks,
                "weights": weights,
            }
        ],
    }
