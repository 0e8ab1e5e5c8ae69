"""The stage at which packets wait that somebody has to approve first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway import handoff
from gateway.approvals import Answered, Desk, Outcome, Waiting
from gateway.decision import uuid7
from gateway.policy import Ask
from gateway.refusal import Reason, Refusal

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.plane import DataPlane

Answer = Callable[[Refusal | None], None]


class Approvals:
    """Has the desk asked what rules ask of a packet, one thing after the other."""

    def __init__(self, plane: DataPlane, desk: Desk, tell: Callable[[Waiting], None]) -> None:
        """Nothing waits yet; `tell` is called with what begins to."""
        self._plane = plane
        self._desk = desk
        self._tell = tell
        self._waiting: dict[Exchange, tuple[str, asyncio.TimerHandle]] = {}

    def enter(self, exchange: Exchange, answer: Answer) -> None:
        """Wait until all is approved, if anything has to be."""
        agent, forward = exchange.agent, exchange.forward
        assert agent is not None
        assert forward is not None
        for ask in exchange.route.grants[agent.name].approvals:
            if not exchange.approved(ask):
                break
        else:
            answer(None)
            return
        waiting = self._told(exchange, ask)

        def answered(found: Answered) -> None:
            self._answered(exchange, ask, found, answer)

        now = self._plane.clock()
        known = self._desk.ask(ask, waiting, now, answered)
        if known is not None:
            self._answered(exchange, ask, known, answer)
            return
        timer = self._plane.loop.call_later(ask.timeout_s, self._time_is_up, waiting.id)
        self._waiting[exchange] = waiting.id, timer
        exchange.waiting = True
        self._tell(waiting)

    def leave(self, exchange: Exchange, outcome: handoff.Outcome) -> None:
        """The packet is over: nobody needs to answer any more."""
        waiting = self._waiting.get(exchange)
        if waiting is not None:
            self._desk.give_up(waiting[0], Outcome.WITHDRAWN, self._plane.clock())

    def _time_is_up(self, id_: str) -> None:
        self._desk.give_up(id_, Outcome.TIMED_OUT, self._plane.clock())

    def _answered(self, exchange: Exchange, ask: Ask, found: Answered, answer: Answer) -> None:
        exchange.approvals += (found,)
        waited = self._waiting.pop(exchange, None)
        exchange.waiting = False
        if waited is not None:
            waited[1].cancel()
        if exchange.finished:
            return
        if not found.given:
            answer(_refusal(ask, found))
            return

        def back(refusal: Refusal | None) -> None:
            if refusal is not None:
                answer(refusal)
            else:
                self.enter(exchange, answer)

        exchange.come_back(back)

    def _told(self, exchange: Exchange, ask: Ask) -> Waiting:
        """What an approver is told of `exchange`."""
        forward, agent = exchange.forward, exchange.agent
        assert forward is not None
        assert agent is not None
        now, packet = self._plane.clock(), forward.packet
        until = now + ask.timeout_s
        if packet.timeout_ms:
            until = min(until, exchange.started_at + min(packet.timeout_ms / 1000, self._plane.max_timeout_s))
        return Waiting(
            id=uuid7(now, self._plane.entropy),
            time=datetime.fromtimestamp(now, UTC),
            until=datetime.fromtimestamp(until, UTC),
            policy=ask.policy,
            rule=ask.rule,
            caller=exchange.caller,
            capability=packet.capabilities.label,
            agent=agent.name,
            agent_capabilities=tuple(sorted(agent.capabilities)),
            flight_id=packet.id,
            reason=ask.reason,
            signer=forward.evidence.signer or "",
            conversation=packet.conversation,
            task=packet.task,
            parent=packet.parent,
            approvers=tuple(each if isinstance(each, str) else each.text for each in ask.approvers),
        )


def _refusal(ask: Ask, found: Answered) -> Refusal:
    asks = f"{ask.name} asks for an approval"
    if found.outcome is Outcome.DENIED:
        why = f": {found.why}" if found.why else ""
        return Refusal(Reason.APPROVAL_DENIED, f"{asks}, and it was denied{why}", ask.policy, ask.rule)
    if found.outcome is Outcome.FULL:
        detail = f"{asks}, and too many packets wait for one; try again later"
        return Refusal(Reason.OVERLOADED, detail, ask.policy, ask.rule, retry_after_s=1)
    detail = f"{asks}, and nobody has answered within {ask.timeout_s:g} s"
    return Refusal(Reason.APPROVAL_TIMEOUT, detail, ask.policy, ask.rule)
