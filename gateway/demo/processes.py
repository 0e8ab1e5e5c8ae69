"""Child processes that never outlive their owner."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

Result = TypeVar("Result")

STOP_TIMEOUT_S = 3.0
"""From asking processes to end (SIGTERM) to ending them (SIGKILL)."""
MAX_LINE_BYTES = 1024 * 1024


class ProcessExitedError(Exception):
    """A process that should be running has ended."""


class Processes:
    """Starts processes, each in a group of its own, and ends them all when the context is left."""

    def __init__(self, logs: Path) -> None:
        """Args: `logs` is the folder, made if need be, where each process's output goes, as ``NAME.log``."""
        logs.mkdir(exist_ok=True)
        self._logs = logs
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Processes:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await asyncio.gather(*(process.wait() for process in self._running.values()))
        finally:
            # Also when the wait above was interrupted; and for what a process itself may have left behind.
            self._signal(signal.SIGKILL)
            await asyncio.gather(*self._readers)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    async def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        on_line: Callable[[bytes], None] | None = None,
    ) -> None:
        """Start `command`; its output goes to its log, but for the lines of standard output that `on_line` takes."""
        with (self._logs / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if on_line else log,
                stderr=log,
                env={**os.environ, **environment},
                cwd=self._logs,
                limit=MAX_LINE_BYTES,
                start_new_session=True,  # the terminal's Ctrl-C is for the owner, who then ends all in order
            )
        self._running[name] = process
        if on_line is not None and process.stdout is not None:
            self._readers.append(asyncio.create_task(_read(process.stdout, on_line)))

    async def guard(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, which is given up as soon as a process ends.

        Raises:
            ProcessExitedError: one did.

        """
        working = asyncio.ensure_future(work)
        exits = {asyncio.ensure_future(process.wait()): name for name, process in self._running.items()}
        try:
            await asyncio.wait([working, *exits], return_when=asyncio.FIRST_COMPLETED)
            for exit_, name in exits.items():
                if exit_.done() and not working.done():
                    raise ProcessExitedError(f"{name} ended with status {exit_.result()}")
            return await working
        finally:
            for future in (working, *exits):
                future.cancel()
            await asyncio.gather(working, *exits, return_exceptions=True)


async def _read(stream: asyncio.StreamReader, on_line: Callable[[bytes], None]) -> None:
    async for line in stream:
        on_line(line)


def log_tails(logs: Path, lines: int = 6) -> str:
    """The last `lines` of each log in the folder `logs` that has any."""
    parts = []
    for log in sorted(logs.glob("*.log")):
        text = log.read_text(errors="replace").strip().splitlines()
        if text:
            parts.append("\n".join([f"--- {log.name}", *text[-lines:]]))
    return "\n".join(parts)
