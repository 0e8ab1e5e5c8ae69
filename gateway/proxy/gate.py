"""Between a verdict and an agent: what takes a memory of earlier packets, or the whole body.

A rule's rate, a signature's first use, and an envelope that must say what the header fields say.  Answers come
by callback: at once where they are at hand, later where a store or a long envelope has to be asked.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence

from gateway.admission import Admission, RateLimiter, ReplayGuard, ReplayMemory
from gateway.decision import Forward, Limit
from gateway.identity import Principal, SpiffeId
from gateway.messages import RequestHead
from gateway.packet import MalformedPacketError
from gateway.packet.envelope import decode
from gateway.packet.modes import disagreement
from gateway.policy.model import Per
from gateway.proxy.questions import Questions
from gateway.refusal import Reason, Refusal

Answer = Callable[[Refusal | None], None]
"""Told once: why not, or ``None``."""

_REPLAY = {
    Admission.SEEN: Refusal(Reason.REPLAYED, "this signature was accepted before; sign each packet anew"),
    Admission.FULL: Refusal(Reason.OVERLOADED, "too many signatures are remembered; try again later", retry_after_s=1),
    Admission.UNAVAILABLE: Refusal(
        Reason.OVERLOADED, "the store that remembers signatures does not answer; try again later", retry_after_s=1
    ),
}

_FAILED = Refusal(Reason.INTERNAL, "the gateway failed to decide; see its log")


class Gate:
    """Lets a packet through once, at the rate of its rules; owns the tasks that find out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, replay: ReplayGuard, on_defect: Callable[[], None]) -> None:
        self._loop = loop
        self._replay = replay
        self._rates = RateLimiter()
        self._questions = Questions(loop, on_defect)

    def enter(
        self, forward: Forward, limits: tuple[Limit, ...], principal: Principal, now: float, answer: Answer
    ) -> None:
        """Whether `forward` may go on: its rules' rates first, so that what they refuse uses no signature up.

        Args:
            forward: the verdict.
            limits: how often the rules that admit the agent allow.
            principal: the caller.
            now: seconds since the epoch.
            answer: called before this returns, unless a store has to be asked.

        """
        for limit in limits:
            wait_s = self._wait_s(limit, forward, principal)
            if wait_s:
                detail = f"{limit.policy}/{limit.rule} allows {limit.rate.text}, per {limit.per.value}; slow down"
                refusal = Refusal(Reason.RATE_LIMITED, detail, limit.policy, limit.rule, math.ceil(wait_s))
                answer(refusal)
                return
        signature = forward.signature
        if signature is None:
            answer(None)
        elif isinstance(self._replay, ReplayMemory):
            admitted = self._replay.admit_now(signature.replay_key, now, signature.remember_until)
            answer(_REPLAY.get(admitted))
        else:
            self._later(self._ask(signature.replay_key, now, signature.remember_until), answer)

    def _wait_s(self, limit: Limit, forward: Forward, principal: Principal) -> float:
        subjects: dict[Per, str] = {
            Per.PRINCIPAL: principal.id,
            Per.CAPABILITY: forward.packet.capabilities.label,
            Per.CONVERSATION: forward.packet.affinity.decode("latin-1"),
        }
        rule = f"{limit.policy}/{limit.rule}"
        return self._rates.take(rule, subjects[limit.per], limit.rate.per_s, limit.rate.count, self._loop.time())

    async def _ask(self, key: bytes, now: float, until: float) -> Refusal | None:
        return _REPLAY.get(await self._replay.admit(key, now, until))

    def compare(
        self, head: RequestHead, body: bytes, principal: Principal, lineage: Sequence[SpiffeId], answer: Answer
    ) -> None:
        """Whether the envelope in `body` says what `head` says; in a thread, since it may take long to read.

        Args:
            head: the request's.
            body: all of it.
            principal: the caller.
            lineage: the principals before it.
            answer: told what was found.

        """

        async def compared() -> Refusal | None:
            return await asyncio.to_thread(_compare, head, body, principal, lineage)

        self._later(compared(), answer)

    def _later(self, question: Coroutine[None, None, Refusal | None], answer: Answer) -> None:
        self._questions.ask(question, answer, _FAILED, "a packet could not be let through")

    async def close(self) -> None:
        """Ask no more."""
        await self._questions.close()


def _compare(head: RequestHead, body: bytes, principal: Principal, lineage: Sequence[SpiffeId]) -> Refusal | None:
    try:
        where = disagreement(head, decode(body), caller=principal.id, lineage=lineage)
    except MalformedPacketError as error:
        where = str(error)
    return Refusal(Reason.MALFORMED_PACKET, where) if where else None
