"""The tasks of an event loop, and where each of them stands."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterable
from types import FrameType
from typing import Any, Final

import msgspec

from gateway.admin.profile import short

MAX_PLACES: Final = 500
"""Different places told of: those where most tasks stand."""
MAX_FRAMES: Final = 50
MAX_NAMES: Final = 10


class Place(msgspec.Struct, frozen=True):
    """Where some tasks stand."""

    count: int
    names: list[str]
    """Of the first `MAX_NAMES` of them."""
    stack: list[str]
    """From the task's own coroutine down to what it waits in: ``function (file:line)``."""


class Tasks(msgspec.Struct, frozen=True):
    """The answer of ``/debug/tasks``."""

    loop_lag_ms: float
    """How late the event loop is, smoothed."""
    tasks: int
    places: list[Place]
    """The one with the most tasks first."""


def standing(tasks: Iterable[asyncio.Task[Any]]) -> tuple[int, list[Place]]:
    """How many `tasks` there are, and where they stand."""
    count = 0
    found: dict[tuple[str, ...], list[str]] = {}
    counts: dict[tuple[str, ...], int] = {}
    for task in tasks:
        if task.done():
            continue
        count += 1
        stack = _stack(task)
        counts[stack] = counts.get(stack, 0) + 1
        names = found.setdefault(stack, [])
        if len(names) < MAX_NAMES:
            names.append(task.get_name())
    places = [Place(counts[stack], sorted(names), list(stack)) for stack, names in found.items()]
    places.sort(key=lambda place: (-place.count, place.stack))
    return count, places[:MAX_PLACES]


def _stack(task: asyncio.Task[Any]) -> tuple[str, ...]:
    """asyncio tells the outermost frame of a task that waits; what it waits in is found from one to the next."""
    stack: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(stack) < MAX_FRAMES:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(awaited, f"{kind}_frame")), "")
        if not kind:
            # What a coroutine's __await__ or an asynchronous generator's __anext__ gives does not say whose it is; what
            # else there is has no frames.
            awaited = next((each for each in gc.get_referents(awaited) if _has_frames(each)), None)
            continue
        frame: FrameType | None = getattr(awaited, f"{kind}_frame")
        if frame is None:
            break
        stack.append(f"{frame.f_code.co_qualname} ({short(frame.f_code.co_filename)}:{frame.f_lineno})")
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return tuple(stack)


def _has_frames(candidate: object) -> bool:
    return inspect.iscoroutine(candidate) or inspect.isasyncgen(candidate)
