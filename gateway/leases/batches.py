"""Questions to Redis that arise in one turn of the event loop, asked together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from gateway.leases.script import LUA, SHA, Reading, State, Todo

MAX_BATCH = 500

_Arguments = tuple[bytes | int, ...]
_Question = tuple[_Arguments, asyncio.Future[Reading]]


class Batches:
    """Asks about leases; owns the tasks that do."""

    __slots__ = ("_idle_ms", "_mine", "_questions", "_redis", "_remember_ms", "_tasks", "_timeout_s")

    def __init__(self, redis: Redis, idle_s: float, remember_s: float, timeout_s: float, mine: bytes) -> None:
        self._redis = redis
        self._idle_ms = round(idle_s * 1000)
        self._remember_ms = round(remember_s * 1000)
        self._timeout_s = timeout_s
        self._mine = mine
        """The field of a lease that tells when this replica last had to do with it."""
        self._questions: list[_Question] = []
        """Those of this turn."""
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(
        self, key: bytes, todo: Todo, wanted: bytes = b"", owner: bytes = b"", epoch: int = 0
    ) -> asyncio.Future[Reading]:
        """Ask about the lease under `key`.

        Args:
            key: the whole key in Redis.
            todo: what is to be done.
            wanted: for whom.
            owner: whose it was when it was read; so `epoch`.
            epoch: its epoch then.

        Returns:
            what comes to be known; `RedisError` or `OSError` when there is no answer.

        """
        loop = asyncio.get_running_loop()
        if not self._questions:
            loop.call_soon(self._send, loop)
        future: asyncio.Future[Reading] = loop.create_future()
        arguments = (key, self._idle_ms, self._remember_ms, todo.value, wanted, owner, epoch, self._mine)
        self._questions.append((arguments, future))
        return future

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        questions, self._questions = self._questions, []
        for start in range(0, len(questions), MAX_BATCH):
            task = loop.create_task(self._answer(questions[start : start + MAX_BATCH]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, questions: list[_Question]) -> None:
        replies: Sequence[Any]
        try:
            async with asyncio.timeout(self._timeout_s):
                replies = await self._call([arguments for arguments, _ in questions])
        except (RedisError, OSError) as error:  # a timeout is an OSError
            replies = [error] * len(questions)
        for (_, future), reply in zip(questions, replies, strict=True):
            if future.done():  # whoever asked waits no longer
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                state, owner, epoch = reply
                future.set_result(Reading(State(state), owner, epoch))

    async def _call(self, calls: Sequence[_Arguments]) -> list[Any]:
        """Run the script for each of `calls`; the replies, or what was wrong with each."""
        replies = await self._pipeline(calls, load=False)
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # Redis is new, or was restarted
            again = await self._pipeline([calls[number] for number in unknown], load=True)
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies

    async def _pipeline(self, calls: Sequence[_Arguments], *, load: bool) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            if load:
                pipeline.script_load(LUA)
            for call in calls:
                pipeline.evalsha(SHA, 1, *call)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies[1:] if load else replies

    async def close(self) -> None:
        """Ask no more; what was asked has no answer."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
