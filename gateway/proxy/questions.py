"""Questions that take a while, and whose answers come by callback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class Questions:
    """Asks; owns the tasks that do."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_defect: Callable[[], None]) -> None:
        self._loop = loop
        self._on_defect = on_defect
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many are being asked."""
        return len(self._tasks)

    def ask(self, question: Coroutine[None, None, T], answer: Callable[[T], None], failed: T, what: str) -> None:
        """Tell `answer` once what `question` comes to.

        Args:
            question: what is to be awaited.
            answer: called on the event loop, unless `close` comes first.
            failed: the answer when `question` raises, which is a defect.
            what: went wrong then, for the log.

        """

        async def asking() -> None:
            try:
                found = await question
            except Exception:
                self._on_defect()
                log.exception(what)
                found = failed
            answer(found)

        task = self._loop.create_task(asking())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
