"""W3C Trace Context in and out, and which handoffs become spans.

On the request's way there are only ids; a handoff's spans are made when it has ended, in the exporter's thread
(`spans.py`), and so it is known by then whether it is worth telling of though it was not sampled.

All ids of one handoff's spans are one random number and a small one, so that the span of each attempt has an id of its
own which its agent gets as its parent, though none of these spans exists yet.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final

from gateway.admission import RateLimiter
from gateway.handoff import Handoff, Outcome
from gateway.messages import Fields
from gateway.packet import fields as names
from gateway.packet.w3c import SAMPLED, read_traceparent
from gateway.telemetry.export import Export
from gateway.telemetry.spans import ATTEMPT, HANDOFF, Ended, SpanContext, spans_of
from gateway.telemetry.spec import TracingSpec
from gateway.telemetry.trace import Trace
from gateway.verdict import Decided

MAX_PARENTS: Final = 4096
"""Packets that later ones may name as their parent and be linked to; the oldest are forgotten."""
MAX_ID_CHARACTERS: Final = 128
"""A packet with a longer id is linked to by none."""


_FLAGS: Final = tuple("%02x" % flags for flags in range(256))


class Tracing:
    """Decides which handoffs are sampled, as the caller did, or else a share of them; and which others are kept."""

    def __init__(
        self,
        spec: TracingSpec | None = None,
        export: Export[Ended] | None = None,
        chance: Callable[[], float] = random.random,
        entropy: Callable[[int], int] = random.getrandbits,
    ) -> None:
        """Args: without `spec` and `export` no span is made."""
        self.export = export
        """Where spans go; ``None`` when there is nobody to tell."""
        self._ratio = self._slow_ms = self._kept_per_s = 0.0
        if spec is not None:
            self.retune(spec)
        self._kept = RateLimiter()
        self._chance = chance
        self._entropy = entropy
        self._parents: OrderedDict[str, SpanContext] = OrderedDict()
        """Of handoffs that become spans, by the packet's id."""
        self.not_kept = 0
        """Spans of handoffs that were worth keeping, and too many."""

    def retune(self, spec: TracingSpec) -> None:
        """Sample and keep other shares; where spans go stays."""
        self._ratio = spec.sample_ratio
        self._slow_ms = spec.slow_s * 1000
        self._kept_per_s = spec.kept_per_second

    def begin(self, decided: Decided) -> Trace:
        """The context of a handoff that has just been decided on."""
        traceparent = decided.verdict.traceparent
        parent = read_traceparent(traceparent) if traceparent else None
        if parent is not None:
            trace_id, flags = parent.trace_id.decode(), parent.flags
            if self.export is None:
                return Trace(traceparent, trace_id, flags)  # we take no part in it
        else:
            trace_id = (self._entropy(128) or 1).to_bytes(16, "big").hex()
            flags = SAMPLED if self._ratio and self._chance() < self._ratio else 0
            if self.export is None:
                return Trace(_header(trace_id, self._entropy(64) or 1, flags), trace_id)
        base = (self._entropy(56) or 1) << 8
        if flags & SAMPLED and decided.verdict.packet is not None:
            self._remember(decided.verdict.packet.id, SpanContext(trace_id, base + HANDOFF, flags))
        header = _header(trace_id, base + ATTEMPT + 1, flags)
        return Trace(header, trace_id, flags, base, parent.span_id if parent is not None else b"")

    def ended(self, handoff: Handoff, decided: Decided, trace: Trace) -> None:
        """Export the spans of a handoff that has ended, if it was sampled or is worth keeping."""
        export = self.export
        if export is None or not (trace.flags & SAMPLED or self._worth_keeping(handoff)):
            return
        if not trace.flags & SAMPLED:
            if not self._may_keep(handoff):
                self.not_kept += spans_of(handoff)
                return
            self._remember(handoff.flight_id, SpanContext(trace.trace_id, trace.base + HANDOFF, trace.flags))
        parent = self._parents.get(handoff.parent) if handoff.parent else None
        export.add(Ended.of(handoff, decided, trace.base, trace.flags, trace.parent, parent))

    def _worth_keeping(self, handoff: Handoff) -> bool:
        outcome = handoff.outcome
        if outcome is not Outcome.COMPLETED and outcome is not Outcome.CANCELLED:
            return True
        # A stream that lives long is not slow: what counts is when its answer began.
        return (handoff.answered_ms or handoff.duration_ms) >= self._slow_ms

    def _may_keep(self, handoff: Handoff) -> bool:
        rate = self._kept_per_s
        return rate > 0 and not self._kept.take("kept", handoff.outcome.value, rate, max(rate, 1.0), monotonic())

    def _remember(self, flight_id: str, context: SpanContext) -> None:
        if not 0 < len(flight_id) <= MAX_ID_CHARACTERS:
            return
        self._parents[flight_id] = context
        self._parents.move_to_end(flight_id)
        if len(self._parents) > MAX_PARENTS:
            self._parents.popitem(last=False)


def renew(trace: Trace, fields: Fields, number: int) -> None:
    """Let the ``traceparent`` in `fields` name the span of attempt `number`, from 1."""
    if trace.base:
        renewed = (names.TRACEPARENT, _header(trace.trace_id, trace.base + ATTEMPT + number, trace.flags))
        fields[:] = [item if item[0] != names.TRACEPARENT else renewed for item in fields]


def _header(trace_id: str, span_id: int, flags: int) -> bytes:
    return f"00-{trace_id}-{span_id.to_bytes(8, 'big').hex()}-{_FLAGS[flags]}".encode()
