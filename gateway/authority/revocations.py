"""Revocations: what is stopped now, whatever policies and credentials say.  Pure.

Enters: who asks, the packet, the credential that came with it, the time.  Leaves: a refusal, or ``None``.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from enum import Enum

import msgspec

from gateway.authority.credential import Credential
from gateway.identity import IdentityError, Principal, parse_spiffe_id
from gateway.packet import FlightPacket
from gateway.refusal import Reason, Refusal

MAX_VALUE_CHARACTERS = 2048
MAX_WHY_CHARACTERS = 500
NEVER = 253402300799.0
"""The end of the year 9999: when an entry ends that has no end."""
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}")


class Kind(Enum):
    """What is revoked."""

    PRINCIPAL = "principal"
    """A SPIFFE id: as the caller, and as one whom the work has passed through."""
    KEY = "key"
    """A certificate by its SHA-256 thumbprint, a signature's ``keyid``, or the ``kid`` that signed a credential."""
    CREDENTIAL = "credential"
    """A credential's ``jti``, with what was narrowed from it; or its root, with all below."""
    CONVERSATION = "conversation"
    """A ``flight-conversation``."""
    TASK = "task"
    """A ``flight-task``, a packet's id, or the id of the packet that the work began with."""


class Entry(msgspec.Struct, frozen=True):
    """One thing that is revoked."""

    kind: Kind
    value: str
    until: float = NEVER
    """Seconds since the epoch."""
    why: str = ""
    who: str = ""
    """The operator, or the file that says so."""

    @property
    def key(self) -> tuple[Kind, str]:
        """What it is about."""
        return self.kind, self.value


def entry(kind: Kind, value: str, until: float = NEVER, why: str = "", who: str = "") -> Entry:
    """A checked entry; a thumbprint as OpenSSL prints it (hexadecimal) is turned into ``x5t#S256``.

    Raises:
        ValueError: nothing can be meant by `value`, or a text is too long.

    """
    if not value or len(value) > MAX_VALUE_CHARACTERS or not value.isprintable():
        raise ValueError(f"expected 1 to {MAX_VALUE_CHARACTERS} printable characters")
    if len(why) > MAX_WHY_CHARACTERS or not all(each.isprintable() for each in why):
        raise ValueError(f"why: expected at most {MAX_WHY_CHARACTERS} printable characters")
    if kind is Kind.PRINCIPAL:
        try:
            value = parse_spiffe_id(value)
        except IdentityError as error:
            raise ValueError(str(error)) from None
    elif kind is Kind.KEY and _FINGERPRINT.fullmatch(value):
        value = urlsafe_b64encode(bytes.fromhex(value.replace(":", ""))).rstrip(b"=").decode("ascii")
    return Entry(kind, value, until, why, who)


class Revocations:
    """What is revoked, at a moment."""

    __slots__ = ("_conversations", "_credentials", "_keys", "_principals", "_tasks", "entries")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Of two entries about the same, the one that lasts longer counts."""
        latest: dict[tuple[Kind, str], Entry] = {}
        for each in entries:
            known = latest.get(each.key)
            if known is None or known.until < each.until:
                latest[each.key] = each
        self.entries = tuple(latest.values())
        self._principals = self._of(Kind.PRINCIPAL)
        self._keys = self._of(Kind.KEY)
        self._credentials = self._of(Kind.CREDENTIAL)
        self._conversations = self._of(Kind.CONVERSATION)
        self._tasks = self._of(Kind.TASK)

    def _of(self, kind: Kind) -> dict[str, float]:
        return {each.value: each.until for each in self.entries if each.kind is kind}

    def refusal_of(
        self,
        principal: Principal,
        now: float,
        packet: FlightPacket | None = None,
        held: Credential | None = None,
        given: str = "",
        keyid: str = "",
    ) -> Refusal | None:
        """Why a request is stopped; ``None`` when it is not.

        Args:
            principal: the caller.
            now: seconds since the epoch.
            packet: what it asks for, unless it is something of the gateway itself.
            held: the credential that came with it.
            given: the ``jti`` of the credential that the receiver was given.
            keyid: of the packet's signature.

        """
        if _any(self._principals, now, principal.id):
            return _REFUSALS[Kind.PRINCIPAL]
        if self._keys:
            shown = principal.thumbprint if principal.certificate else ""
            if _any(self._keys, now, shown, keyid, held.key if held is not None else ""):
                return _REFUSALS[Kind.KEY]
        if packet is not None:
            if _any(self._conversations, now, packet.conversation):
                return _REFUSALS[Kind.CONVERSATION]
            if _any(self._tasks, now, packet.task, packet.id):
                return _REFUSALS[Kind.TASK]
        if held is None:
            return _REFUSALS[Kind.CREDENTIAL] if _any(self._credentials, now, given) else None
        if _any(self._principals, now, held.subject, *held.lineage):
            return _PASSED_THROUGH
        if _any(self._credentials, now, given, held.id, held.parent, held.root):
            return _REFUSALS[Kind.CREDENTIAL]
        if _any(self._conversations, now, held.conversation):
            return _REFUSALS[Kind.CONVERSATION]
        if _any(self._tasks, now, held.root):
            return _REFUSALS[Kind.TASK]
        return None


def _any(revoked: dict[str, float], now: float, *values: str) -> bool:
    if not revoked:
        return False
    for value in values:
        until = revoked.get(value)
        if until is not None and until > now:
            return True
    return False


NO_REVOCATIONS = Revocations()
_REFUSALS = {
    Kind.PRINCIPAL: Refusal(Reason.REVOKED, "the caller is revoked; ask an operator of the gateway"),
    Kind.KEY: Refusal(Reason.REVOKED, "a key or certificate that was shown is revoked; ask an operator of the gateway"),
    Kind.CREDENTIAL: Refusal(Reason.REVOKED, "the handoff credential is revoked; ask an operator of the gateway"),
    Kind.CONVERSATION: Refusal(Reason.REVOKED, "the conversation is revoked; ask an operator of the gateway"),
    Kind.TASK: Refusal(Reason.REVOKED, "the task is revoked; ask an operator of the gateway"),
}
_PASSED_THROUGH = Refusal(
    Reason.REVOKED, "a principal that the work has passed through is revoked; ask an operator of the gateway"
)
