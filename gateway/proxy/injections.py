"""What is put into packets' headers for their agents, and how it is had in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.brokering.broker import Broker
from gateway.messages import Fields
from gateway.policy.brokering import Brokered
from gateway.proxy.questions import Questions
from gateway.refusal import Reason, Refusal

_FAILED = Refusal(Reason.INTERNAL, "the gateway failed to have the agent's secret; see its log")


class Injections:
    """Asks a broker; owns the tasks that wait for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, broker: Broker, on_defect: Callable[[], None]) -> None:
        self.broker = broker
        self._questions = Questions(loop, on_defect)

    def ask(self, brokered: Brokered, answer: Callable[[Fields | Refusal], None]) -> None:
        """Have what `brokered` names; `answer` is called once, before this returns unless a server has to be asked."""
        found = self.broker.at_hand(brokered)
        if found is not None:
            answer(found)
        else:
            self._questions.ask(self.broker.fetch(brokered), answer, _FAILED, "an agent's secret could not be had")

    async def close(self) -> None:
        """Ask no more."""
        await self._questions.close()
        await self.broker.close()
