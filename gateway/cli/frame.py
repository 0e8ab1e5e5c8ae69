"""What ``phoenixflight top`` shows: one frame, made of what was heard.  Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import quantiles

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.admin.events import State
from gateway.admin.members import Member
from gateway.handoff import Handoff, Outcome

WINDOW = timedelta(seconds=60)
"""How far back the tables look, from the newest handoff or state."""
MAX_HANDOFFS = 20_000
"""Looked back at, at most."""
MAX_ROWS = 12
MAX_REFUSALS = 8
_NUMBERS = frozenset({"in flight", "share", "handoffs", "refused", "failed", "p50 ms", "p99 ms"})
_TEXTS = frozenset({"from", "detail", "why"})
"""Columns that give way where a line is too long."""
_STYLES = {"ready": "green", "draining": "yellow", "ejected": "red", "retired": "dim"}


class Frame:
    """What was heard so far."""

    def __init__(self, admin: str) -> None:
        self._admin = admin
        self._handoffs: deque[Handoff] = deque(maxlen=MAX_HANDOFFS)
        self._refusals: deque[Handoff] = deque(maxlen=MAX_REFUSALS)
        self.state: State | None = None
        self.members: Sequence[Member] = ()

    def add(self, handoff: Handoff) -> None:
        """A handoff has ended."""
        self._handoffs.append(handoff)
        if handoff.outcome is Outcome.REFUSED:
            self._refusals.append(handoff)

    def render(self) -> RenderableType:
        """All of it, for a terminal."""
        now = self.state.time if self.state is not None else datetime.max
        while self._handoffs and self._handoffs[0].time < now - WINDOW:
            self._handoffs.popleft()
        return Group(
            self._head(),
            Text(),
            self._agents(),
            Text(),
            self._capabilities(),
            Text(),
            self._latest_refusals(),
        )

    def _head(self) -> RenderableType:
        state = self.state
        if state is None:
            return Text(f"{self._admin}: nothing heard yet")
        ready = Text("ready", "bold green") if state.ready else Text("not ready", "bold red")
        at = state.time.strftime("%H:%M:%S")
        first = Text.assemble(
            self._admin, "  ", ready, f"  revision {state.revision or 'not the same everywhere'}  {at} UTC"
        )
        second = Text(
            f"in flight {state.in_flight}   connections {state.connections}   handoffs/s {state.handoffs_per_s:g}   "
            f"refused/s {state.refused_per_s:g}   failed/s {state.failed_per_s:g}   "
            f"loop lag {state.loop_lag_ms:.1f} ms   overload {state.overload_level}"
        )
        missed = [Text(f"{state.dropped} handoffs came too fast to be shown", "yellow")] if state.dropped else []
        return Group(first, second, *missed)

    def _agents(self) -> Table:
        table = _table("agent", "state", "in flight", "share", "handoffs", "failed", "p50 ms", "p99 ms", "why")
        by_agent: dict[str, list[Handoff]] = {}
        for handoff in self._handoffs:
            by_agent.setdefault(handoff.agent, []).append(handoff)
        # Those with something to tell come first.
        order = sorted(
            self.members, key=lambda each: (-each.in_flight, -len(by_agent.get(each.name, ())), each.state, each.name)
        )
        for member in order[:MAX_ROWS]:
            some = by_agent.get(member.name, [])
            table.add_row(
                member.name,
                Text(member.state, _STYLES.get(member.state, "")),
                str(member.in_flight),
                f"{member.share:.1%}",
                str(len(some)),
                str(_count(some, Outcome.FAILED)),
                *_latencies(some),
                member.why,
            )
        if len(order) > MAX_ROWS:
            table.add_row(f"and {len(order) - MAX_ROWS} more", *[""] * 8)
        return table

    def _capabilities(self) -> Table:
        table = _table("capability", "handoffs", "refused", "failed", "p50 ms", "p99 ms")
        by_capability: dict[str, list[Handoff]] = {}
        for handoff in self._handoffs:
            by_capability.setdefault(handoff.capability or "(none)", []).append(handoff)
        order = sorted(by_capability.items(), key=lambda each: (-len(each[1]), each[0]))
        for capability, some in order[:MAX_ROWS]:
            refused, failed = _count(some, Outcome.REFUSED), _count(some, Outcome.FAILED)
            answered = [each for each in some if each.outcome is Outcome.COMPLETED]
            table.add_row(capability, str(len(some)), str(refused), str(failed), *_latencies(answered))
        return table

    def _latest_refusals(self) -> Table:
        table = _table("refused at", "status", "reason", "from", "capability", "detail")
        for each in reversed(self._refusals):
            at = each.time.strftime("%H:%M:%S")
            table.add_row(at, str(each.status), each.reason, each.caller, each.capability, each.detail)
        return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="right" if column in _NUMBERS else "left", no_wrap=column not in _TEXTS, overflow="fold"
        )
    return table


def _count(handoffs: Iterable[Handoff], outcome: Outcome) -> int:
    return sum(each.outcome is outcome for each in handoffs)


def _latencies(handoffs: Sequence[Handoff]) -> tuple[str, str]:
    """The median and the 99th percentile of how long they took."""
    if not handoffs:
        return "", ""
    took = [each.duration_ms for each in handoffs]
    if len(took) == 1:
        return f"{took[0]:.1f}", f"{took[0]:.1f}"
    cuts = quantiles(took, n=100, method="inclusive")
    return f"{cuts[49]:.1f}", f"{cuts[98]:.1f}"
