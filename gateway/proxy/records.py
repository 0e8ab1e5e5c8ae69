"""From ended exchanges to `Handoff` records, some at a time.

A record is made a moment after its exchange, with the others of that moment: what is done many times in a row
finds its code and data in the processor's caches, and costs a third of what it costs on each exchange's own way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING

from gateway.authority import Credential, lineage_of
from gateway.decision import Shadow
from gateway.handoff import Attempt, Handoff, Outcome
from gateway.headers import field_value
from gateway.packet import Capabilities, FlightPacket
from gateway.packet import fields as names
from gateway.refusal import Refusal
from gateway.telemetry.trace import Trace
from gateway.usage import written
from gateway.verdict import Decided

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

INTERVAL_S = 0.01
"""How long an ended exchange waits for its record, at most."""
MAX_WAITING = 32
"""As many are recorded at once."""
MAX_LOGGED_CHARACTERS = 512

_NO_PACKET = FlightPacket("", Capabilities(()), b"")
"""What is recorded of a request that was no readable packet."""

Sink = Callable[[Handoff, Decided, Trace, float, float], None]
"""Takes a record, the decision, its trace, the seconds of the gateway's own work and those of the whole handoff."""


class Records:
    """Makes one `Handoff` of each ended exchange."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: Sink) -> None:
        self._loop = loop
        self._sink = sink
        self._waiting: list[tuple[Exchange, Outcome, Refusal | None, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, exchange: Exchange, outcome: Outcome, refusal: Refusal | None) -> None:
        """Record `exchange`, which is over and changes no more."""
        self._waiting.append((exchange, outcome, refusal, perf_counter()))
        if len(self._waiting) >= MAX_WAITING:
            self.settle()
        elif self._timer is None:
            self._timer = self._loop.call_later(INTERVAL_S, self.settle)

    def settle(self) -> None:
        """Record what waits, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for exchange, outcome, refusal, ended in waiting:
            trace = exchange.trace
            assert trace is not None
            duration_s = ended - exchange.started
            gateway_s = (exchange.decided or ended) - exchange.started
            handoff = recorded(exchange, outcome, refusal, gateway_s, duration_s)
            self._sink(handoff, exchange.decision, trace, gateway_s, duration_s)


def recorded(
    exchange: Exchange, outcome: Outcome, refusal: Refusal | None, gateway_s: float, duration_s: float
) -> Handoff:
    """What is known of `exchange`, which has ended so or is under way.

    Args:
        exchange: it.
        outcome: how it ended.
        refusal: what it was refused with, if it was.
        gateway_s: the gateway's own work before the request was on its way.
        duration_s: from the head's arrival.

    """
    verdict = exchange.forward or exchange.refuse
    packet = (verdict.packet if verdict is not None else None) or _NO_PACKET
    head = exchange.head
    trace = exchange.trace
    assert trace is not None
    caller = exchange.downstream.principal
    policy = rule = ""
    if refusal is not None and refusal.policy:
        policy, rule = refusal.policy, refusal.rule
    elif exchange.forward is not None and exchange.agent is not None:
        granted = exchange.route.grants[exchange.agent.name]
        policy, rule = granted.policy, granted.rule
    codec = exchange.downstream.codec
    path = head.path
    # By place, in the order of its fields: by name it takes three times as long, since there are so many.
    return Handoff(
        datetime.fromtimestamp(exchange.started_at, UTC),
        outcome,
        packet.id,  # flight_id
        packet.conversation,
        packet.task,
        packet.parent,
        caller.id if caller is not None else "",
        (verdict.evidence.signer or "") if verdict is not None else "",
        packet.capabilities.label,  # capability
        exchange.agent.name if exchange.agent is not None else "",
        refusal.reason.slug if refusal is not None else "",
        refusal.detail if refusal is not None else "",
        policy,
        rule,
        exchange.snapshot.revision,
        _told(verdict.shadow) if verdict is not None and verdict.shadow is not None else "",
        exchange.downstream.listener.name,
        codec.name if codec is not None else "",  # protocol
        head.method.decode("latin-1"),
        _logged(head.authority),
        _logged(path.partition(b"?")[0] if b"?" in path else path),
        exchange.status,
        exchange.attempts,
        _failed(exchange) if exchange.failures else (),
        _brokered(exchange) if exchange.brokered is not None else "",
        _usage(exchange),
        written(exchange.meter.reserved) if exchange.meter is not None else "",  # reserved
        "; ".join(each.text for each in exchange.approvals) if exchange.approvals else "",  # approval
        exchange.repeated,
        exchange.bytes_in,
        exchange.bytes_out,
        _ms(duration_s),
        _ms(exchange.waited_s),
        _ms(gateway_s),
        _since(exchange, exchange.asked_at),
        _since(exchange, exchange.sent_at),
        _since(exchange, exchange.answered_at),
        trace.trace_id,
        _lineage(exchange),
        _root(exchange),
        exchange.given,  # credential
        exchange.decision.destination,
    )


def _lineage(exchange: Exchange) -> tuple[str, ...]:
    """Whom the work has passed through, as the agent was told, or would have been."""
    if exchange.terms is not None:
        return exchange.terms.lineage
    held, caller = _held(exchange), exchange.downstream.principal
    return lineage_of(held, caller.id) if held is not None and caller is not None else ()


def _root(exchange: Exchange) -> str:
    if exchange.terms is not None:
        return exchange.terms.root
    held = _held(exchange)
    return held.root if held is not None else ""


def _held(exchange: Exchange) -> Credential | None:
    verdict = exchange.forward or exchange.refuse
    return verdict.held if verdict is not None else None


def _since(exchange: Exchange, at: float) -> float:
    """Milliseconds from the request's head to `at`; 0 for what never was."""
    return _ms(at - exchange.started) if at else 0.0


def _ms(seconds: float) -> float:
    """Milliseconds, to the microsecond: `round` goes by way of a text, ten times as long."""
    return int(seconds * 1e6 + 0.5) / 1000


def _failed(exchange: Exchange) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(
            each.agent,
            each.cause.value,
            _since(exchange, each.asked_at),
            _since(exchange, each.ended_at),
            _since(exchange, each.sent_at),
        )
        for each in exchange.failures
    )


def _brokered(exchange: Exchange) -> str:
    """The documents whose secrets went to the last agent that the request was sent to."""
    brokered = exchange.brokered
    if brokered is None or not exchange.sent_at:
        return ""
    return ", ".join(injection.document for injection in brokered.injections)


def _usage(exchange: Exchange) -> str:
    """What the agent says in its answer's trailers, else in its head, and what else was read from it."""
    usage = None
    if exchange.trailers is not None:
        usage = field_value(exchange.trailers, names.USAGE)
    if usage is None and exchange.response is not None:
        usage = field_value(exchange.response.fields, names.USAGE)
    said = _logged(usage) if usage is not None else ""
    read = written(exchange.meter.read) if exchange.meter is not None else ""
    return ", ".join(part for part in (said, read) if part)


def _told(shadow: Shadow) -> str:
    """What enforcing the shadow policies would do, in short: it is a label of a metric, too."""
    what = "refuse" if not shadow.allow else "ask" if shadow.asks else "allow"
    return f"{what}: {', '.join(shadow.rules)}"


def _logged(text: bytes) -> str:
    """What of a caller's text goes into the record; never a query, which may carry secrets."""
    return text[:MAX_LOGGED_CHARACTERS].decode("latin-1")
