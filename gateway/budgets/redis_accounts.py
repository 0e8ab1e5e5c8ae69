"""Accounts that all replicas share, in a Redis (or Valkey).

What Redis forgets without knowing it may be spent again: run it with ``maxmemory-policy noeviction``, and with
``appendonly`` to survive restarts.  One that begins with an empty memory is known to have lost it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import msgspec
from redis.exceptions import RedisError

from gateway.budgets.accounts import KEEP_S, Asked, Opened, Reserved, Short, Trouble
from gateway.budgets.allowance import Allowance
from gateway.budgets.script import LUA, State, Todo
from gateway.budgets.spec import BudgetSpec
from gateway.redis_store import DEFAULT_CONNECTIONS, DEFAULT_TIMEOUT_S, Outage, connect

PREFIX: Final = b"phoenixflight:budgets:"
MAX_BATCH: Final = 500
MAX_UNTOLD: Final = 100_000
"""Ends of accounts that Redis has not taken yet; the oldest make room, and what they had left is lost."""
RETRY_S: Final = 1.0
"""How often Redis is told again what it did not take."""
_KEEP_MS: Final = round(KEEP_S * 1000)
_ERRORS = (RedisError, OSError)
"""That there is no answer; a timeout is an OSError."""
_json = msgspec.json.Encoder().encode
_Call = list[bytes | str | int]

log = logging.getLogger(__name__)


class RedisAccounts:
    """`Accounts` in Redis; one round trip opens an account.

    While there is no answer, accounts are opened within the allowance of this process, if there is one, and Redis is
    told of them as soon as it answers again.  How an account ended is told again until Redis takes it.
    """

    __slots__ = ("_allowance", "_ended", "_greeted", "_outage", "_redis", "_script", "_tasks", "_timeout_s", "errors")

    def __init__(
        self,
        url: str,
        spec: BudgetSpec,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_connections: int = DEFAULT_CONNECTIONS,
    ) -> None:
        """Nothing is connected yet.

        Args:
            url: as `connect` takes it.
            spec: the allowance and the bound.
            timeout_s: for everything that an answer takes, connecting and waiting for a connection included.
            max_connections: more questions than these at once wait for their turn.

        """
        self._timeout_s = timeout_s
        self._redis = connect(url, max_connections)
        self._script = self._redis.register_script(LUA)
        consequence = "packets with a budget are " + (
            "sent on within budgets.withoutRedis" if spec.without_redis else "refused"
        )
        self._outage = Outage(log, "budgets", consequence)
        self._allowance = Allowance(spec.without_redis, spec.capacity)
        self._ended: dict[str, Mapping[str, int]] = {}
        """What was spent of accounts, until Redis knows."""
        self._greeted = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.errors = 0

    @property
    def entries(self) -> int:
        """See `Accounts.entries`: what Redis is still to be told of."""
        return len(self._ended.keys() | self._allowance.untold.keys())

    @property
    def trouble(self) -> str:
        """See `Accounts.trouble`."""
        return self._outage.trouble

    async def open(self, asked: Asked, now: float) -> Opened:
        """See `Accounts.open`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                state, *rest = await self._script([PREFIX], _arguments(Todo.OPEN, asked))
        except _ERRORS as error:
            self._failed(error)
            found = self._allowance.open(asked, now)
            if not isinstance(found, Reserved):
                self._end(asked.account, {})  # it may have been opened all the same
            return found
        except asyncio.CancelledError:
            self._end(asked.account, {})
            raise
        self._outage.answered()
        state = State(state)
        if state is State.RESERVED:
            return Reserved({str(unit, "utf-8"): int(rest[at + 1]) for at, unit in enumerate(rest) if at % 2 == 0})
        if state is State.SHORT:
            return Short(str(rest[0], "utf-8"))
        return Trouble.LOST if state is State.LOST else Trouble.CLOSED

    def settle(self, account: str, spent: Mapping[str, int], now: float) -> None:
        """See `Accounts.settle`."""
        self._allowance.settle(account, spent, now)
        self._end(account, spent)
        task = asyncio.get_running_loop().create_task(self._tell([account]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, account: str, spent: Mapping[str, int]) -> None:
        if len(self._ended) >= MAX_UNTOLD:
            del self._ended[next(iter(self._ended))]
        self._ended[account] = spent

    async def _tell(self, accounts: Sequence[str]) -> None:
        """Tell Redis of accounts that were opened without it, and of those that are over."""
        calls: list[tuple[str, bool, _Call]] = []
        for account in accounts:
            local = self._allowance.untold.get(account)
            if local is not None:
                calls.append((account, False, _arguments(Todo.ADOPT, local.asked)))
            if account in self._ended:
                over = Asked(account, None, self._ended[account])
                calls.append((account, True, _arguments(Todo.SETTLE, over)))
        noted = await self._call([arguments for _, _, arguments in calls])
        for (account, over_, _), taken in zip(calls, noted, strict=True):
            if taken and over_:
                self._ended.pop(account, None)
            elif taken:
                self._allowance.told(account)

    async def _call(self, calls: Sequence[_Call]) -> list[bool]:
        """Run the script for each of `calls`; which of them were answered."""
        if not calls:
            return []
        replies: list[Any]
        try:
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipeline:
                for arguments in calls:
                    await self._script([PREFIX], arguments, client=pipeline)
                replies = await pipeline.execute(raise_on_error=False)
        except _ERRORS as error:
            self._failed(error)
            return [False] * len(calls)
        failed = [reply for reply in replies if isinstance(reply, Exception)]
        if failed:
            self._failed(failed[0])
        else:
            self._outage.answered()
        return [not isinstance(reply, Exception) for reply in replies]

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        self._outage.failed(error)

    async def run(self) -> None:
        """Tell Redis again what it did not take, until cancelled."""
        while True:
            await self.tell_again()
            await asyncio.sleep(RETRY_S)

    async def tell_again(self) -> None:
        """Tell Redis what it has not taken yet."""
        if not self._greeted:
            self._greeted = all(await self._call([_arguments(Todo.HELLO, Asked("", None, {}))]))
        accounts = [*self._allowance.untold, *(each for each in self._ended if each not in self._allowance.untold)]
        for start in range(0, len(accounts), MAX_BATCH):
            await self._tell(accounts[start : start + MAX_BATCH])
            if self.trouble:
                break

    async def close(self) -> None:
        """Tell Redis what it has not taken yet, once more, and close the connections."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await self.tell_again()
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _arguments(todo: Todo, asked: Asked) -> _Call:
    parent = asked.parent
    whose, born_ms, budget = (parent.id, parent.born_ms, parent.budget) if parent is not None else ("", 0, {})
    return [todo.value, asked.account, whose, born_ms, _KEEP_MS, _json(asked.amounts), _json(budget)]
