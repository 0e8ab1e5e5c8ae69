"""Accounts, in this process and in a real Redis: whatever is opened and settled when, no budget is overspent."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest
import redis as client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.budgets import Accounts, Asked, BudgetSpec, MemoryAccounts, Opened, Parent, Reserved, Short, Trouble
from gateway.budgets.redis_accounts import RedisAccounts
from gateway.decision import uuid7
from tests.redis_server import RedisServer

NOW = 1_000_000.0
BUDGET = {"tokens": 1000}


def new() -> str:
    return uuid7(time.time(), random.getrandbits)


async def opened(
    accounts: Accounts, amount: int, parent: str = "", name: str = "", left: int = 0
) -> tuple[str, Opened]:
    """Open an account of so many tokens under `parent`, which began with `left`."""
    name = new()
    of = Parent(parent, {"tokens": left}, int(parent.replace("-", "")[:12], 16)) if parent else None
    return name, await accounts.open(Asked(name, of, {"tokens": amount}), NOW)


async def all_told(*replicas: RedisAccounts) -> None:
    """Redis knows of all that is over."""
    for accounts in replicas:
        await accounts.tell_again()
        assert not accounts.entries


async def settle(accounts: Accounts, name: str, tokens: int) -> None:
    accounts.settle(name, {"tokens": tokens}, NOW)
    if isinstance(accounts, RedisAccounts):
        await all_told(accounts)


@pytest.fixture(params=["memory", "redis"])
async def accounts(request: pytest.FixtureRequest) -> AsyncIterator[Accounts]:
    if request.param == "memory":
        yield MemoryAccounts(10_000)
        return
    server: RedisServer = request.getfixturevalue("redis")
    async with RedisAccounts(server.url, BudgetSpec(), timeout_s=5) as made:
        await made.tell_again()
        yield made


async def test_what_is_not_spent_goes_back_and_what_is_stays_taken(accounts: Accounts) -> None:
    root, found = await opened(accounts, 1000)
    assert found == Reserved({"tokens": 1000})
    child, found = await opened(accounts, 600, root, left=1000)
    assert found == Reserved({"tokens": 600})
    assert (await opened(accounts, 600, root, left=1000))[1] == Reserved({"tokens": 400})
    assert (await opened(accounts, 1, root, left=1000))[1] == Short("tokens")
    await settle(accounts, child, 150)
    await settle(accounts, child, 0)
    assert (await opened(accounts, 600, root, left=1000))[1] == Reserved({"tokens": 450})


async def test_a_closed_account_gives_nothing_and_passes_on_what_comes_back(accounts: Accounts) -> None:
    root, _ = await opened(accounts, 1000)
    child, _ = await opened(accounts, 800, root, left=1000)
    grandchild, _ = await opened(accounts, 500, child, left=800)
    await settle(accounts, child, 100)
    assert (await opened(accounts, 1, child, left=800))[1] is Trouble.CLOSED
    assert (await opened(accounts, 9999, root, left=1000))[1] == Reserved({"tokens": 400})
    await settle(accounts, grandchild, 200)
    assert (await opened(accounts, 9999, root, left=1000))[1] == Reserved({"tokens": 300})


async def test_an_account_that_is_not_known_begins_with_its_credential_s_budget(accounts: Accounts) -> None:
    stranger = new()
    assert (await opened(accounts, 9999, stranger, left=70))[1] == Reserved({"tokens": 70})
    assert (await opened(accounts, 1, stranger, left=70))[1] == Short("tokens")
    of = Parent(new(), {}, 2**48)
    unlimited = await accounts.open(Asked(new(), of, {"tokens": 5, "cost": 999_999_999_999_999}), NOW)
    assert unlimited == Reserved({"tokens": 5, "cost": 999_999_999_999_999})


async def test_64_children_at_once_share_what_there_is(accounts: Accounts) -> None:
    root, _ = await opened(accounts, 1000)
    found = await asyncio.gather(*(opened(accounts, 100, root, left=1000) for _ in range(64)))
    amounts = [each.amounts["tokens"] for _, each in found if isinstance(each, Reserved)]
    assert (sum(amounts), len(amounts)) == (1000, 10)


class Tree:
    """Accounts opened and settled at random, beside what must be so."""

    def __init__(self, accounts: Accounts, seed: int) -> None:
        self.accounts = accounts
        self.random = random.Random(seed)
        self.open: dict[str, int] = {}
        """What each has."""
        self.spent = 0

    async def live(self, steps: int) -> int:
        """Hand on, spend and settle; gives what the root has left in the end."""
        root, _ = await opened(self.accounts, 1000)
        self.open[root] = 1000
        for _ in range(steps):
            parents = self.random.choices(list(self.open), k=4)
            found = await asyncio.gather(
                *(opened(self.accounts, self.random.randint(1, 400), each, left=self.open[each]) for each in parents)
            )
            self.open |= {name: each.amounts["tokens"] for name, each in found if isinstance(each, Reserved)}
            some = [each for each in self.open if each != root and self.random.random() < 0.5]
            for each in some:
                await self.end(each)
        for each in [each for each in self.open if each != root]:
            await self.end(each)
        _, left = await opened(self.accounts, 9999, root, left=1000)
        return left.amounts["tokens"] if isinstance(left, Reserved) else 0

    async def end(self, name: str) -> None:
        """It spends some of what its children have not been given: what it can still have is asked for first."""
        del self.open[name]
        probe, found = await opened(self.accounts, 9999, name, left=0)
        own = self.random.randint(0, found.amounts["tokens"]) if isinstance(found, Reserved) else 0
        if isinstance(found, Reserved):
            await settle(self.accounts, probe, 0)
        self.spent += own
        await settle(self.accounts, name, own)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
async def test_no_tree_overspends_and_refunds_come_out_even(seed: int) -> None:
    tree = Tree(MemoryAccounts(10_000), seed)
    assert await tree.live(12) + tree.spent == 1000


@given(seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_nor_does_one_in_redis(redis: RedisServer, seed: int) -> None:
    async with RedisAccounts(redis.url, BudgetSpec(), timeout_s=5) as accounts:
        await accounts.tell_again()
        tree = Tree(accounts, seed)
        assert await tree.live(6) + tree.spent == 1000


async def test_two_replicas_never_give_more_than_there_is(redis: RedisServer) -> None:
    async with RedisAccounts(redis.url, BudgetSpec(), timeout_s=5) as a, RedisAccounts(redis.url, BudgetSpec()) as b:
        root, _ = await opened(a, 1000)

        async def work(replica: RedisAccounts) -> int:
            name, found = await opened(replica, 100, root, left=1000)
            if not isinstance(found, Reserved):
                return 0
            await asyncio.sleep(random.random() / 100)
            spent = random.randint(0, found.amounts["tokens"])
            replica.settle(name, {"tokens": spent}, NOW)
            return spent

        spent = sum(await asyncio.gather(*(work(replica) for replica in [a, b] * 32)))
        await all_told(a, b)
        assert spent <= 1000
        _, left = await opened(b, 9999, root, left=1000)
        assert (left.amounts["tokens"] if isinstance(left, Reserved) else 0) + spent == 1000


async def test_while_redis_is_away_nothing_is_given_beyond_the_allowance_and_all_is_charged_afterwards(
    redis: RedisServer,
) -> None:
    spec = BudgetSpec(without_redis={"tokens": 300})
    async with RedisAccounts(redis.url, spec) as lax, RedisAccounts(redis.url, BudgetSpec()) as strict:
        await lax.tell_again()
        root, _ = await opened(lax, 1000)
        redis.freeze()
        found = await asyncio.gather(*(opened(lax, 100, root, left=1000) for _ in range(16)))
        assert (await opened(strict, 100, root, left=1000))[1] is Trouble.UNAVAILABLE
        given_ = [name for name, each in found if isinstance(each, Reserved)]
        assert len(given_) == 3
        assert [each for _, each in found].count(Trouble.UNAVAILABLE) == 13
        lax.settle(given_[0], {"tokens": 40}, NOW)
        more = await opened(lax, 100, root, left=1000)
        assert more[1] == Reserved({"tokens": 60})
        redis.thaw()
        while lax.entries or strict.entries:
            await lax.tell_again()
            await strict.tell_again()
        for name in (given_[1], given_[2], more[0]):
            await settle(lax, name, 50)
        _, left = await opened(strict, 9999, root, left=1000)
        assert left == Reserved({"tokens": 1000 - 40 - 150})


async def test_a_redis_that_has_lost_its_memory_begins_no_budget_anew(redis: RedisServer) -> None:
    async with RedisAccounts(redis.url, BudgetSpec(), timeout_s=5) as accounts:
        root, _ = await opened(accounts, 1000)
        with client.Redis.from_url(redis.url) as store:
            await asyncio.sleep(0.002)
            store.flushall()
        assert (await opened(accounts, 1, root, left=1000))[1] is Trouble.LOST
        await asyncio.sleep(0.002)
        assert (await opened(accounts, 1, new(), left=1000))[1] == Reserved({"tokens": 1})


async def test_memory_is_bounded_and_forgets_only_what_is_over() -> None:
    accounts = MemoryAccounts(3)
    root, _ = await opened(accounts, 10)
    child, _ = await opened(accounts, 5, root)
    await opened(accounts, 5, root)
    assert (await opened(accounts, 1))[1] is Trouble.FULL
    accounts.settle(child, {}, NOW)
    assert accounts.open_now(Asked("a", None, BUDGET), NOW + 599) is Trouble.FULL
    assert accounts.open_now(Asked("a", None, BUDGET), NOW + 601) == Reserved(BUDGET)
