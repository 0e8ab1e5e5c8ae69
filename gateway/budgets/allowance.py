"""What this process may reserve and spend by itself, while the store of all is away."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.budgets.accounts import Asked, Opened, Reserved, Trouble
from gateway.budgets.memory import MemoryAccounts


class Local(msgspec.Struct):
    """An account that the store does not know of yet."""

    asked: Asked
    """As it was opened: what it has, and whose it is."""
    holds: dict[str, int]
    """Of the allowance: what is reserved, and once it is closed what was spent."""


class Allowance:
    """A bounded sum of what the store has not been told, by unit.

    What is told to it is free again, so that outages one after another never leave more than the bound untold.
    """

    __slots__ = ("_book", "_left", "untold")

    def __init__(self, amounts: Mapping[str, int], capacity: int) -> None:
        self._left = dict(amounts)
        self._book = MemoryAccounts(capacity)
        self.untold: dict[str, Local] = {}

    def open(self, asked: Asked, now: float) -> Opened:
        """Open an account here, with no more than is left of the allowance."""
        amounts = {unit: min(amount, self._left.get(unit, 0)) for unit, amount in asked.amounts.items()}
        if any(amounts[unit] <= 0 < asked.amounts[unit] for unit in amounts):
            return Trouble.UNAVAILABLE
        found = self._book.open_now(msgspec.structs.replace(asked, amounts=amounts), now)
        if isinstance(found, Reserved):
            self._free(found.amounts, -1)
            asked = msgspec.structs.replace(asked, amounts=found.amounts)
            self.untold[asked.account] = Local(asked, dict(found.amounts))
        return found

    def settle(self, account: str, spent: Mapping[str, int], now: float) -> None:
        """An account is over; it may have been opened elsewhere."""
        self._book.settle(account, spent, now)
        local = self.untold.get(account)
        if local is not None:
            self._free(local.holds, 1)
            local.holds = {unit: spent.get(unit, 0) for unit in local.holds}
            self._free(local.holds, -1)

    def told(self, account: str) -> None:
        """The store knows of it now."""
        local = self.untold.pop(account, None)
        if local is not None:
            self._free(local.holds, 1)

    def _free(self, amounts: Mapping[str, int], sign: int) -> None:
        for unit, amount in amounts.items():
            self._left[unit] += sign * amount
