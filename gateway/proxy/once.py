"""Packets that are done once: what is held of them, and what the ledger is asked and told.

The ledger's key is whose packet it is, the signer's if it is signed and else the caller's, and its ``flight-id``.  The
digest is of all that an agent goes by: method, path, capabilities, content type and body.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from enum import Enum

from gateway.decision import Forward
from gateway.headers import field_value, opens_tunnel
from gateway.identity import Principal
from gateway.ledger import Found, Ledger, LedgerMemory, LedgerSpec, Standing, StoredAnswer, Twins
from gateway.messages import Fields, RequestHead
from gateway.packet import FlightPacket
from gateway.packet import fields as names
from gateway.policy.patterns import GlobIndex
from gateway.proxy.questions import Questions
from gateway.refusal import Reason, Refusal

_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
"""Methods that ask for nothing to be done (RFC 9110 section 9.2.1); all others are done once."""
_MAX_DIGITS = 18
"""Of a length that is worth reading."""
_MAX_LABELS = 4096

Begun = Callable[[StoredAnswer | Refusal | None], None]
"""Told once: the answer of the packet's first time, why it may not begin, or ``None`` if it does."""


class Event(Enum):
    """What is counted."""

    BEGUN = "begun"
    REPEATED = "repeated"
    """Its answer was known."""
    WAITED = "twin-waited"
    """It found its twin under way, and began to wait."""
    REFUSED = "twin-refused"
    """It found its twin under way, and was refused, at once or after waiting."""
    CONFLICT = "conflict"
    UNKNOWN = "unknown"
    FULL = "full"
    UNAVAILABLE = "unavailable"
    DONE = "done"
    """Its answer came whole, and is kept."""
    LOST = "lost"
    """Its answer did not come whole."""
    TOO_LARGE = "too-large"
    """Its answer came whole, and is too large to keep."""
    FORGOTTEN = "forgotten"
    """It began, and reached no agent."""


_EVENTS = {
    Standing.BEGUN: Event.BEGUN,
    Standing.TWIN: Event.REFUSED,
    Standing.CONFLICT: Event.CONFLICT,
    Standing.UNKNOWN: Event.UNKNOWN,
    Standing.FULL: Event.FULL,
    Standing.UNAVAILABLE: Event.UNAVAILABLE,
}
_REFUSALS = {
    Standing.TWIN: Refusal(
        Reason.IN_FLIGHT,
        "the packet with this flight-id is under way; ask for its answer later, by the same packet",
        retry_after_s=1,
    ),
    Standing.CONFLICT: Refusal(
        Reason.ID_CONFLICT,
        "another packet has this flight-id: its method, path, capabilities, content type or body differ; "
        "give each packet an id of its own",
    ),
    Standing.UNKNOWN: Refusal(
        Reason.OUTCOME_UNKNOWN,
        "an agent was given the packet with this flight-id, and what came of it is not known here; "
        "ask the agent, or send it under a new flight-id if it may be done twice",
    ),
    Standing.FULL: Refusal(
        Reason.OVERLOADED, "too many packets that are done once are remembered; try again later", retry_after_s=1
    ),
    Standing.UNAVAILABLE: Refusal(
        Reason.OVERLOADED, "the store that knows what was done does not answer; try again later", retry_after_s=1
    ),
}
_TUNNEL = Refusal(Reason.TUNNEL_REFUSED, "what is done once has one request and one answer; a tunnel has neither")
_NO_ID = Refusal(
    Reason.MALFORMED_PACKET, "flight-id is missing: without one, nobody can tell whether this packet was done before"
)
_TOO_MUCH = Refusal(
    Reason.OVERLOADED, "too many bodies are held of packets that are done once; try again later", retry_after_s=1
)


class OnceOnly:
    """Knows which packets are done once; owns the tasks that ask the ledger."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ledger: Ledger, spec: LedgerSpec, on_defect: Callable[[], None]
    ) -> None:
        self.ledger = ledger
        self.max_body = spec.max_body
        self.max_answer = spec.max_answer
        self.counts = dict.fromkeys(Event, 0)
        self.too_large = Refusal(
            Reason.BODY_TOO_LARGE, f"a packet that is done once has a body of at most {spec.max_body} bytes"
        )
        self._patterns = GlobIndex((pattern, 0) for pattern in spec.capabilities)
        self._known: dict[str, bool] = {}
        """Whether packets are done once, by what they ask for; bounded."""
        self._wait_s = spec.wait_s if spec.twins is Twins.WAIT else 0.0
        self._max_held = spec.max_held
        self._held = 0
        """Bytes of the bodies that are held."""
        self._questions = Questions(loop, on_defect)

    def admit(self, head: RequestHead, forward: Forward, principal: Principal) -> OncePacket | Refusal | None:
        """What stands for a packet that is done once; why it cannot be; ``None`` for any other packet."""
        packet = forward.packet
        if head.method in _SAFE or not self._concerns(packet):
            return None
        if opens_tunnel(head):
            return _TUNNEL
        if field_value(head.fields, names.ID) is None:
            return _NO_ID
        length = field_value(head.fields, b"content-length")
        if length and (len(length) > _MAX_DIGITS or int(length) > self.max_body):
            return self.too_large
        whose = forward.evidence.signer or principal.id
        return OncePacket(self, b"%s\0%s" % (whose.encode(), packet.id.encode()), _kind(head, packet))

    def _concerns(self, packet: FlightPacket) -> bool:
        label = packet.capabilities.label
        known = self._known.get(label)
        if known is None:
            known = any(self._patterns.matching(name) for name in packet.capabilities.names)
            if len(self._known) < _MAX_LABELS:
                self._known[label] = known
        return known

    def hold(self, size: int) -> bool:
        """Whether there is room to hold so much more of a body; then it counts."""
        if self._held + size > self._max_held:
            return False
        self._held += size
        return True

    def let_go(self, size: int) -> None:
        """So much is held no more."""
        self._held -= size

    def ask(self, key: bytes, digest: bytes, now: float, answer: Callable[[Found | Refusal], None]) -> None:
        """`Ledger.begin`; `answer` is called before this returns, unless a store or a twin is waited for."""
        ledger = self.ledger
        if isinstance(ledger, LedgerMemory):
            found = ledger.begin_now(key, digest, now)
            if found is not Standing.TWIN or not self._wait_s:
                answer(found)
                return
        failed = Refusal(Reason.INTERNAL, "the gateway failed to ask its ledger; see its log")
        self._questions.ask(self._asking(key, digest, now), answer, failed, "the ledger could not be asked")

    async def _asking(self, key: bytes, digest: bytes, now: float) -> Found | Refusal:
        found = await self.ledger.begin(key, digest, now)
        if found is Standing.TWIN and self._wait_s:
            self.counts[Event.WAITED] += 1
            found = await self.ledger.begin(key, digest, now, self._wait_s)
        return found

    async def close(self) -> None:
        """Ask no more."""
        await self._questions.close()


class _Stage(Enum):
    """How far a packet has come."""

    BEFORE = 1
    """The ledger has not said yet that it begins."""
    BEGUN = 2
    """It has begun, and no agent has anything of it."""
    TAKEN = 3
    """An agent may have done something with it."""
    OVER = 4


class OncePacket:
    """One packet that is done once, from its body to what came of it."""

    __slots__ = (
        "_digest",
        "_fields",
        "_held",
        "_key",
        "_pieces",
        "_room",
        "_size",
        "_stage",
        "_status",
        "_trailers",
        "_whole",
    )

    def __init__(self, room: OnceOnly, key: bytes, kind: bytes) -> None:
        self._room = room
        self._key = key
        self._digest = hashlib.sha256(kind)
        self._held = 0
        self._stage = _Stage.BEFORE
        self._status = 0
        self._fields: Fields = []
        self._pieces: list[bytes] | None = []
        """What has come of the answer's body; ``None`` when it is too large to keep."""
        self._size = 0
        self._trailers: Fields | None = None
        self._whole = False
        """The answer has come to its end."""

    def take(self, data: bytes) -> Refusal | None:
        """A piece of the request's body, which is held; why it cannot be."""
        if self._held + len(data) > self._room.max_body:
            return self._room.too_large
        if not self._room.hold(len(data)):
            return _TOO_MUCH
        self._held += len(data)
        self._digest.update(data)
        return None

    def begin(self, now: float, answer: Begun) -> None:
        """Its body is whole, and all else is in order: have the ledger say whether it begins.

        Args:
            now: seconds since the epoch.
            answer: called before this returns, unless a store or a twin is waited for; not when the packet is over.

        """

        def told(found: Found | Refusal) -> None:
            if self._stage is _Stage.OVER:
                if found is Standing.BEGUN:
                    self._room.ledger.forget(self._key)
                return
            counts = self._room.counts
            if isinstance(found, Standing):
                counts[_EVENTS[found]] += 1
                if found is Standing.BEGUN:
                    self._stage = _Stage.BEGUN
                    answer(None)
                else:
                    answer(_REFUSALS[found])
            else:
                if isinstance(found, StoredAnswer):
                    counts[Event.REPEATED] += 1
                answer(found)

        self._room.ask(self._key, self._digest.digest(), now, told)

    @property
    def worth_going_on(self) -> bool:
        """Whether it has begun, and its answer could still be kept for whoever asks again."""
        return self._stage is _Stage.TAKEN and self._pieces is not None

    def sent(self) -> None:
        """It is on its way to an agent."""
        self._stage = _Stage.TAKEN
        self._let_go()

    def untouched(self) -> None:
        """The agent certainly did nothing with it."""
        self._stage = _Stage.BEGUN

    def on_response(self, status: int, fields: Fields, *, ended: bool) -> None:
        """The answer's head, as the caller gets it."""
        self._status, self._fields, self._whole = status, fields, ended

    def on_response_data(self, data: bytes) -> None:
        """A piece of the answer's body."""
        pieces = self._pieces
        if pieces is not None:
            self._size += len(data)
            if self._size > self._room.max_answer:
                self._pieces = None
            else:
                pieces.append(data)

    def on_response_end(self, trailers: Fields | None) -> None:
        """The answer is whole."""
        self._trailers, self._whole = trailers, True

    def end(self, now: float) -> None:
        """It is over, at `now` in seconds since the epoch: have the ledger know how."""
        stage, self._stage = self._stage, _Stage.OVER
        self._let_go()
        room, ledger = self._room, self._room.ledger
        if stage is _Stage.BEGUN:
            room.counts[Event.FORGOTTEN] += 1
            ledger.forget(self._key)
        elif stage is _Stage.TAKEN:
            pieces, self._pieces = self._pieces, None
            if self._whole and pieces is not None:
                answer = StoredAnswer(self._status, self._fields, b"".join(pieces), self._trailers)
                kept = ledger.finish(self._key, answer, now)
            else:
                kept = False
                ledger.lose(self._key, now)
            room.counts[Event.DONE if kept else Event.TOO_LARGE if self._whole else Event.LOST] += 1

    def _let_go(self) -> None:
        held, self._held = self._held, 0
        self._room.let_go(held)


def _kind(head: RequestHead, packet: FlightPacket) -> bytes:
    """What beside the body tells one packet from another; no part can be taken for two."""
    parts = (
        head.method,
        head.path,
        packet.capabilities.label.encode(),
        field_value(head.fields, names.CONTENT_TYPE) or b"",
    )
    return b"".join(b"%d:%s," % (len(part), part) for part in parts)
