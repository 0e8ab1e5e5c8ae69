"""What the terminal shows: a row for each handoff as it ends, and a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from gateway.demo.user import Answer
from gateway.handoff import Handoff, Outcome
from gateway.routing import Agent

_COLUMNS = (("FROM", 10), ("CAPABILITY", 26), ("AGENT", 12), ("POLICY", 16), ("STATUS", 8))

_STYLES = {
    Outcome.COMPLETED: "green",
    Outcome.REFUSED: "bold yellow",
    Outcome.FAILED: "bold red",
    Outcome.CANCELLED: "magenta",
}


class Report:
    """Writes to a terminal, or to whatever stands in its place, line by line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str, style: str = "") -> None:
        """A line of text."""
        self._console.print(Text(text, style), soft_wrap=True)

    def agents(self, agents: Iterable[Agent], speaks: Mapping[str, str]) -> None:
        """Who takes part, how the gateway reaches each, and what each speaks."""
        for agent in agents:
            way = agent.protocol.value + (" over mTLS" if agent.spiffe_id else "")
            capabilities = ", ".join(sorted(agent.capabilities))
            self.say(f"  {agent.name:<12}{capabilities:<28}{way:<20}{speaks[agent.name]}")
        self.say("a row below is a handoff that has ended: the innermost comes first", "dim")

    def header(self) -> None:
        """The names of the columns."""
        self.say("".join(name.ljust(width) for name, width in _COLUMNS) + "    TIME", "bold")

    def row(self, handoff: Handoff) -> None:
        """One handoff; for a refusal, its reason below."""
        cells = (
            short(handoff.caller),
            handoff.capability,
            handoff.agent or "-",
            handoff.policy or "-",
            str(handoff.status or "-"),
        )
        line = "".join(cell.ljust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
        self.say(f"{line}{_duration(handoff.duration_ms):>8}", _STYLES[handoff.outcome])
        if handoff.outcome is not Outcome.COMPLETED:
            rule = f" (rule {handoff.rule})" if handoff.rule else ""
            self.say(f"  {handoff.outcome.value}: {handoff.reason}: {handoff.detail}{rule}", _STYLES[handoff.outcome])

    def tree(self, handoffs: Iterable[Mapping[str, Any]]) -> None:
        """Whom the work of each handoff had passed through, and what it was allowed and spent; children follow.

        Args:
            handoffs: as the admin port gives them, each with its ``children``.

        """
        for each in handoffs:
            way = " > ".join([short(one) for one in each.get("lineage", [each["from"]])])
            to = f"> {each['agent']}" if each["outcome"] == Outcome.COMPLETED.value else f"x {each['reason']}"
            self.say(f"  {way} {to}".ljust(66) + _amounts(each.get("reserved")).ljust(22) + _amounts(each.get("spent")))
            self.tree(each["children"])

    def answer(self, answer: Answer) -> None:
        """What a person was given in the end."""
        self.say("")
        for line in answer.code.rstrip().splitlines():
            self.say(f"    {line}", "cyan")
        self.say(f"  heard in {answer.tokens} pieces as it was written", "dim")
        self.say(f"  printed {answer.output}; review: {answer.verdict}", "bold")
        for remark in answer.remarks:
            self.say(f"  - {remark}", "dim")
        self.say("")

    def summary(self, handoffs: Iterable[Handoff], total_s: float) -> None:
        """Counts over everything that was handed on."""
        handoffs = list(handoffs)
        refused = sum(handoff.outcome is Outcome.REFUSED for handoff in handoffs)
        agents = Counter(handoff.agent for handoff in handoffs if handoff.agent)
        by_agent = ", ".join(f"{name} {count}" for name, count in sorted(agents.items()))
        self.say(f"{len(handoffs)} handoffs, {refused} refused, in {total_s:.1f} s", "bold")
        self.say(f"by agent: {by_agent}")


def short(principal: str) -> str:
    """The last part of a SPIFFE id."""
    return principal.rpartition("/")[2] or "-"


def _amounts(of: Mapping[str, int] | None) -> str:
    return ", ".join(f"{unit} {amount}" for unit, amount in (of or {}).items()) or "-"


def _duration(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.1f} ms"
