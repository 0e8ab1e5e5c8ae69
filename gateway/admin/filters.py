"""Which handoffs somebody wants to see.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.handoff import Handoff, Outcome

NAMES = ("capability", "outcome", "from", "agent", "conversation", "task")
"""What a query filters by."""
_OUTCOMES = frozenset(outcome.value for outcome in Outcome) - {Outcome.OPEN.value}


class Filter(msgspec.Struct, frozen=True, rename={"caller": "from"}):
    """What a handoff has to be; empty values want nothing.

    Of `capability`, `caller` and `agent` a part is enough, whatever its case; the others are wanted whole.
    """

    capability: str = ""
    outcome: str = ""
    caller: str = ""
    agent: str = ""
    conversation: str = ""
    task: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """The filter that a URL's `query` asks for; other parameters are passed over.

        Raises:
            ValueError: there is no such outcome.

        """
        outcome = query.get("outcome", "")
        if outcome and outcome not in _OUTCOMES:
            raise ValueError(f"outcome {outcome!r}: expected one of {', '.join(sorted(_OUTCOMES))}")
        return cls(
            query.get("capability", "").lower(),
            outcome,
            query.get("from", "").lower(),
            query.get("agent", "").lower(),
            query.get("conversation", ""),
            query.get("task", ""),
        )

    def wants(self, handoff: Handoff) -> bool:
        """Whether `handoff` is such a one."""
        return (
            (not self.outcome or handoff.outcome.value == self.outcome)
            and (not self.conversation or handoff.conversation == self.conversation)
            and (not self.task or handoff.task == self.task)
            and (not self.capability or self.capability in handoff.capability.lower())
            and (not self.agent or self.agent in handoff.agent.lower())
            and (not self.caller or self.caller in handoff.caller.lower())
        )
