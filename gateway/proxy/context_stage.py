"""The stage that sees to a packet's context: whether it is there, who may read it from now on, what goes with it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.contexts import Contexts, Event, StoreError
from gateway.contexts.cipher import DamagedError
from gateway.handoff import Outcome
from gateway.packet import FlightPacket
from gateway.packet import fields as names
from gateway.policy import ContextTerms
from gateway.proxy.contexts import DAMAGED, UNAVAILABLE, readers_of
from gateway.proxy.questions import Questions
from gateway.refusal import Reason, Refusal
from gateway.routing import Agent

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

_FAILED = Refusal(Reason.INTERNAL, "the gateway failed to look for the context; see its log")
_NONE_HERE = Refusal(Reason.CONTEXT_UNKNOWN, "this takes a context from the gateway's store, and it has none")
_UNKNOWN = Refusal(
    Reason.CONTEXT_UNKNOWN,
    "this conversation has no such context that you may read; store it with PUT /contexts/DIGEST, or again",
)
_MISSING = Refusal(
    Reason.CONTEXT_MISSING, "this takes flight-context with the context's sha-256, and flight-conversation"
)
_NO_TERMS = ContextTerms(required=False, inline=False)

Readers = list[str]


class ContextStage:
    """Lets the agent read what its packet refers to, if the caller may, and inlines it where the rule says so."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, contexts: Contexts | None, on_defect: Callable[[], None]
    ) -> None:
        """Args: `contexts` is ``None`` where the gateway keeps none; `on_defect` is told when this fails."""
        self._contexts = contexts
        self._questions = Questions(loop, on_defect)

    def enter(self, exchange: Exchange, answer: Callable[[Refusal | None], None]) -> None:
        """See `Stage.enter`."""
        assert exchange.agent is not None
        self.hand_to(exchange.agent, exchange, answer)

    def leave(self, exchange: Exchange, outcome: Outcome) -> None:
        """See `Stage.leave`: what was granted stays."""

    def hand_to(self, agent: Agent, exchange: Exchange, answer: Callable[[Refusal | None], None]) -> None:
        """The same for the agent that is asked next, after another has failed the packet."""
        forward, principal = exchange.forward, exchange.downstream.principal
        assert forward is not None
        assert principal is not None
        contexts, packet = self._contexts, forward.packet
        terms = exchange.route.grants[agent.name].context or _NO_TERMS
        # What was inlined for an agent before this one need not be for this one, too.
        forward.fields[:] = [field for field in forward.fields if field[0] != names.CONTEXT_CONTENT]
        demanded = terms.required or (terms.inline and bool(packet.context))
        if contexts is None or not (packet.context and packet.conversation):
            if not demanded:
                answer(None)
            else:
                answer(_NONE_HERE if contexts is None else _MISSING)
            return
        readers = readers_of(principal, forward.held, packet.conversation)

        def found(result: Refusal | bytes | None) -> None:
            if isinstance(result, Refusal):
                # Without terms nobody has promised that the context is here: the agent may know where else.
                answer(result if demanded else None)
                return
            if result is not None:
                contexts.counts[Event.INLINED] += 1
                forward.fields.append((names.CONTEXT_CONTENT, b":%s:" % b64encode(result)))
            answer(None)

        question = _granted(contexts, packet, readers, agent, inline=terms.inline)
        self._questions.ask(question, found, _FAILED, "a packet's context could not be looked for")

    async def close(self) -> None:
        """Ask no more."""
        await self._questions.close()


async def _granted(
    contexts: Contexts, packet: FlightPacket, readers: Readers, agent: Agent, *, inline: bool
) -> Refusal | bytes | None:
    """The context's bytes if they are to be inlined, or why they cannot be had; `agent` may read them from now on."""
    try:
        # Who has no identity of its own cannot come for it; that the caller may read it is found out all the same.
        receiver = agent.spiffe_id or readers[0]
        if not await contexts.grant(packet.conversation, packet.context, readers, receiver):
            return _UNKNOWN
        if not inline:
            return None
        body = await contexts.get(packet.conversation, packet.context, readers)
    except StoreError:
        return UNAVAILABLE
    except DamagedError:
        return DAMAGED
    if body is None:
        return _UNKNOWN
    most = contexts.spec.max_inline
    if len(body) > most:
        detail = (
            f"the agent is given contexts with the packet, of at most {most} bytes; this one has {len(body)}: "
            "shorten it, or ask an agent that fetches them"
        )
        return Refusal(Reason.CONTEXT_TOO_LARGE, detail)
    return body
