"""Accounts in this process."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

from gateway.budgets.accounts import KEEP_S, MAX_ANCESTORS, Asked, Opened, Parent, Reserved, Short, Trouble

_AGED_PER_OPENING = 4


class _Account:
    """One account."""

    __slots__ = ("left", "parent", "until")

    def __init__(self, parent: str, left: dict[str, int] | None) -> None:
        self.parent = parent
        self.left = left
        """By unit, and ``None`` when it is closed; below zero when more was spent than it had."""
        self.until = math.inf
        """When it may be forgotten."""


class MemoryAccounts:
    """`Accounts` in this process.

    What is open is never forgotten, and what is closed not before its time: at the bound, nothing new is opened.
    """

    __slots__ = ("_accounts", "_capacity", "_latest", "_resting")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._latest = -math.inf
        self._accounts: dict[str, _Account] = {}
        self._resting: OrderedDict[str, _Account] = OrderedDict()
        """Those that are closed, or known from a credential only; those first that were touched first."""

    @property
    def entries(self) -> int:
        """See `Accounts.entries`."""
        return len(self._accounts)

    @property
    def trouble(self) -> str:
        """Nothing: it always answers."""
        return ""

    @property
    def errors(self) -> int:
        """None, likewise."""
        return 0

    def open_now(self, asked: Asked, now: float) -> Opened:
        """`open`, at once."""
        now = self._latest = max(now, self._latest)
        self._age(now, _AGED_PER_OPENING)
        if asked.account in self._accounts:
            return Trouble.CLOSED
        if not self._room():
            self._age(now, len(self._resting))
            if not self._room():
                return Trouble.FULL
        amounts = dict(asked.amounts)
        left: dict[str, int] = {}
        if asked.parent is not None:
            there = self._parent(asked.parent, now).left
            if there is None:
                return Trouble.CLOSED
            left = there
            amounts = {unit: min(amount, left.get(unit, amount)) for unit, amount in amounts.items()}
        for unit, amount in amounts.items():
            if amount <= 0:
                return Short(unit)
        for unit in amounts.keys() & left.keys():
            left[unit] -= amounts[unit]
        parent = asked.parent.id if asked.parent is not None else ""
        self._accounts[asked.account] = _Account(parent, dict(amounts))
        return Reserved(amounts)

    async def open(self, asked: Asked, now: float) -> Opened:
        """See `Accounts.open`."""
        return self.open_now(asked, now)

    def settle(self, account: str, spent: Mapping[str, int], now: float) -> None:
        """See `Accounts.settle`."""
        entry = self._accounts.get(account)
        if entry is None or entry.left is None:
            return
        back = {unit: left - spent.get(unit, 0) for unit, left in entry.left.items()}
        entry.left = None
        self._rest(account, entry, now)
        for _ in range(MAX_ANCESTORS):
            parent = self._accounts.get(entry.parent)
            if parent is None:
                return
            if parent.left is not None:
                for unit in back.keys() & parent.left.keys():
                    parent.left[unit] += back[unit]
                return
            entry = parent

    def left(self, account: str) -> Mapping[str, int] | None:
        """What an account has left, by unit; ``None`` if it is closed, or not known."""
        entry = self._accounts.get(account)
        return entry.left if entry is not None else None

    def _parent(self, parent: Parent, now: float) -> _Account:
        """The parent's account, as it stands or as it began."""
        entry = self._accounts.get(parent.id)
        if entry is None:
            entry = self._accounts[parent.id] = _Account("", dict(parent.budget))
            self._rest(parent.id, entry, now)
        elif parent.id in self._resting and entry.left is not None:
            self._rest(parent.id, entry, now)
        return entry

    def _rest(self, account: str, entry: _Account, now: float) -> None:
        entry.until = now + KEEP_S
        self._resting[account] = entry
        self._resting.move_to_end(account)

    def _room(self) -> bool:
        return len(self._accounts) < self._capacity

    def _age(self, now: float, count: int) -> None:
        """Forget up to `count` of those whose time is over."""
        for _ in range(min(count, len(self._resting))):
            account, first = next(iter(self._resting.items()))
            if first.until > now:
                return
            del self._resting[account], self._accounts[account]

    async def run(self) -> None:
        """Nothing is to be made up for."""

    async def close(self) -> None:
        """Nothing is to be closed."""
