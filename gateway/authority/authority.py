"""The authority of a gateway: its keys and bounds, and what it says of a credential that is shown.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gateway.authority.credential import Credential
from gateway.authority.keys import KeyRing
from gateway.authority.narrow import Terms, hops_left, lineage_of, narrow
from gateway.authority.spec import AuthoritySpec
from gateway.authority.token import CredentialError, Verifier, mint
from gateway.identity import Principal, SpiffeId
from gateway.packet import FlightPacket
from gateway.policy.model import Grant
from gateway.refusal import Reason, Refusal


class Authority:
    """Gives and takes handoff credentials."""

    __slots__ = ("_verifier", "ring", "spec")

    def __init__(self, ring: KeyRing, spec: AuthoritySpec) -> None:
        self.ring = ring
        self.spec = spec
        self._verifier = Verifier(ring, spec.issuer)

    def jwks(self) -> dict[str, Any]:
        """What others verify credentials with."""
        return self.ring.jwks()

    def verify(self, raw: bytes, principal: Principal, now: float, *, bound: bool = True) -> Credential:
        """The credential `raw`, shown by `principal`.

        Args:
            raw: the value of ``flight-credential``.
            principal: the caller.
            now: seconds since the epoch.
            bound: hold it against the certificate of `principal`.

        Raises:
            CredentialError: it does not hold, or is not for `principal` to show.

        """
        return self._verifier.verify(raw, principal, now, bound=bound)

    def objection(self, held: Credential | None, packet: FlightPacket) -> Refusal | None:
        """Why `packet` is not covered by `held`, or may not be handed on once more."""
        if held is not None:
            for name in packet.capabilities.names:
                if not any(pattern.matches(name) for pattern in held.capabilities):
                    detail = f"cap: the handoff credential does not cover {name}"
                    return Refusal(Reason.CREDENTIAL_INSUFFICIENT, detail)
            if held.conversation and packet.conversation not in ("", held.conversation):
                detail = "conv: the handoff credential is of another conversation than the packet"
                return Refusal(Reason.CREDENTIAL_INSUFFICIENT, detail)
        if (held is not None or packet.budget) and hops_left(held, packet, self.spec.max_hops) < 1:
            return Refusal(Reason.HOPS_EXHAUSTED, "the work may not be handed on any further: no hops are left")
        return None

    def loops(self, held: Credential | None, caller: SpiffeId) -> frozenset[SpiffeId]:
        """Whom the work has visited as often as it may."""
        lineage = lineage_of(held, caller)
        if self.spec.max_visits == 1:
            return frozenset(lineage)
        return frozenset(one for one, visits in Counter(lineage).items() if visits >= self.spec.max_visits)

    def narrow(
        self, held: Credential | None, packet: FlightPacket, caller: SpiffeId, grants: Sequence[Grant], now: float
    ) -> Terms:
        """What the next agent may do with the work; see `gateway.authority.narrow.narrow`."""
        spec = self.spec
        return narrow(held, packet, caller, grants, now, max_ttl_s=spec.max_ttl_s, max_hops=spec.max_hops)

    def mint(self, terms: Terms, now: float, *, jti: str, audience: SpiffeId, thumbprint: str) -> bytes:
        """A credential that says `terms`; see `gateway.authority.token.mint`.  It need not be verified here."""
        key = self.ring.signing
        token = mint(terms, key, now, issuer=self.spec.issuer, jti=jti, audience=audience, thumbprint=thumbprint)
        credential = Credential(
            id=jti,
            parent=terms.parent,
            root=terms.root,
            conversation=terms.conversation,
            subject=terms.subject,
            lineage=terms.lineage,
            audience=audience,
            thumbprint=thumbprint,
            capabilities=terms.capabilities,
            budget=terms.budget,
            expires=int(terms.expires),
            key=key.kid,
        )
        self._verifier.remember(token, credential, int(now))
        return token


NO_AUTHORITY = Refusal(Reason.CREDENTIAL_INVALID, "kid: this gateway has no keys, and takes no handoff credentials")
"""What is said of a credential where no authority is configured."""


def invalid(error: CredentialError) -> Refusal:
    """How a caller is told of `error`."""
    return Refusal(Reason.CREDENTIAL_INVALID, str(error))
