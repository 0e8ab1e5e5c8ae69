"""Budgets of packets: reserved before an agent is asked, read along its answer, settled when the exchange is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from gateway.authority import Credential
from gateway.budgets import Accounts, Asked, MemoryAccounts, Opened, Parent, Reserved, Short, Trouble
from gateway.handoff import Outcome
from gateway.messages import Fields, ResponseHead
from gateway.policy.model import Grant
from gateway.proxy.endings import can_end_early
from gateway.proxy.questions import Questions
from gateway.refusal import Reason, Refusal
from gateway.telemetry.budgets import BudgetCounts
from gateway.usage import UsageReader

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

HOPS: Final = "hops"
"""Is not spent, but counted down from credential to credential."""
MAX_UNITS: Final = 16
"""In one account: what is granted first, then what the packet adds to it."""
MAX_AMOUNT: Final = 999_999_999_999_999
_OVERSPENT: Final = "overspent"

_REFUSALS = {
    Trouble.CLOSED: Refusal(
        Reason.BUDGET_EXHAUSTED,
        "the work that this credential was given for is over, and what was left of its budget has gone back",
    ),
    Trouble.LOST: Refusal(
        Reason.OVERLOADED,
        "the store that keeps budgets has lost what this one has left; have the work handed on anew",
        retry_after_s=1,
    ),
    Trouble.FULL: Refusal(Reason.OVERLOADED, "too many budgets are remembered; try again later", retry_after_s=1),
    Trouble.UNAVAILABLE: Refusal(
        Reason.OVERLOADED, "the store that keeps budgets does not answer; try again later", retry_after_s=1
    ),
}


class Meter:
    """Of one exchange: what was reserved for it, and what is spent of that."""

    __slots__ = ("_ends", "_reader", "account", "ended_early", "reserved")

    def __init__(self, account: str, reserved: Mapping[str, int]) -> None:
        self.account = account
        self.reserved = reserved
        self._reader: UsageReader | None = None
        self.ended_early = False
        """More was spent than reserved, and so it was ended."""
        self._ends = False
        """The answer is one that can be ended in its own format."""

    @property
    def spent(self) -> dict[str, int]:
        """By unit, as far as the answer has told."""
        return self._reader.spent if self._reader is not None else {}

    @property
    def read(self) -> dict[str, int]:
        """Of that, what ``flight-usage`` does not say."""
        return self._reader.read if self._reader is not None else {}

    def on_response(self, head: ResponseHead) -> Refusal | None:
        """The answer's head has gone to the caller; why it ends here, if it does."""
        self._reader = UsageReader(head.fields)
        self._ends = can_end_early(head)
        return self._overspent()

    def on_response_data(self, data: bytes) -> Refusal | None:
        """A piece of the answer has gone to the caller; why it ends here, if it does."""
        reader = self._reader
        assert reader is not None
        return self._overspent() if reader.feed(data) else None

    def on_response_end(self, trailers: Fields | None) -> None:
        """The answer was whole."""
        if self._reader is not None:
            self._reader.end(trailers)

    def _overspent(self) -> Refusal | None:
        if self._ends:
            spent = self.spent
            for unit, reserved in self.reserved.items():
                if spent.get(unit, 0) > reserved:
                    self.ended_early = True
                    detail = f"{spent[unit]} {unit} are spent, and {reserved} were reserved"
                    return Refusal(Reason.BUDGET_EXHAUSTED, detail)
        return None


class Budgets:
    """The stage that reserves what a packet may spend; owns the tasks that ask for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, accounts: Accounts, on_defect: Callable[[], None]) -> None:
        self.counts = BudgetCounts()
        self._accounts = accounts
        self._questions = Questions(loop, on_defect)

    def enter(self, exchange: Exchange, answer: Callable[[Refusal | None], None]) -> None:
        """See `Stage.enter`; nothing is asked for a packet without a budget."""
        forward, agent = exchange.forward, exchange.agent
        assert forward is not None
        assert agent is not None
        held = forward.held
        amounts = asked_for(forward.packet.budget, exchange.route.grants[agent.name].grants, held)
        if not amounts:
            answer(None)
            return
        asked = Asked(exchange.credential_id, _parent(held) if held is not None else None, amounts)
        now = exchange.plane.clock()
        told = partial(self._told, exchange, answer)
        if isinstance(self._accounts, MemoryAccounts):
            told(self._accounts.open_now(asked, now))
            return
        self._questions.ask(self._opening(asked, now), told, _FAILED, "an account could not be opened")

    async def _opening(self, asked: Asked, now: float) -> Opened | Refusal:
        return await self._accounts.open(asked, now)

    def _told(self, exchange: Exchange, answer: Callable[[Refusal | None], None], found: Opened | Refusal) -> None:
        if isinstance(found, Reserved):
            if exchange.finished:
                self._accounts.settle(exchange.credential_id, {}, exchange.plane.clock())
                return
            exchange.meter = Meter(exchange.credential_id, found.amounts)
            for unit, amount in found.amounts.items():
                self.counts.reserve(unit, amount)
            answer(None)
        elif isinstance(found, Short):
            self.counts.refuse("exhausted")
            answer(Refusal(Reason.BUDGET_EXHAUSTED, f"no {found.unit} are left to spend"))
        elif isinstance(found, Trouble):
            self.counts.refuse(found.value)
            answer(_REFUSALS[found])
        else:
            answer(found)

    def leave(self, exchange: Exchange, outcome: Outcome) -> None:
        """See `Stage.leave`: what the answer has told of is spent, the rest goes back."""
        meter = exchange.meter
        if meter is None:
            return
        spent = {unit: amount for unit, amount in meter.spent.items() if unit in meter.reserved}
        for unit, reserved in meter.reserved.items():
            self.counts.settle(unit, spent.get(unit, 0), reserved)
        if meter.ended_early:
            self.counts.refuse(_OVERSPENT)
        self._accounts.settle(meter.account, spent, exchange.plane.clock())

    async def close(self) -> None:
        """Ask no more."""
        await self._questions.close()


_FAILED: Final = Refusal(Reason.INTERNAL, "the gateway failed to reserve a budget; see its log")


def asked_for(packet: Mapping[str, int], grants: Iterable[Grant], held: Credential | None) -> dict[str, int]:
    """The most that a packet may spend, by unit: of what it, its rules and its caller's credential say, the least."""
    amounts: dict[str, int] = {}
    for budget in (*(grant.budget for grant in grants), *((held.budget,) if held is not None else ()), packet):
        for unit, amount in budget.items():
            if unit != HOPS and (unit in amounts or len(amounts) < MAX_UNITS):
                amounts[unit] = min(amount, amounts.get(unit, MAX_AMOUNT))
    return amounts


def _parent(held: Credential) -> Parent:
    budget = {unit: min(amount, MAX_AMOUNT) for unit, amount in held.budget.items() if unit != HOPS}
    return Parent(held.id, budget, _born_ms(held.id))


def _born_ms(name: str) -> int:
    """When a UUIDv7 was made (RFC 9562 section 5.7); 0 for any other name."""
    try:
        made = UUID(name)
    except ValueError:
        return 0
    return made.int >> 80 if made.version == 7 else 0
