"""What goes on with a packet whose work is handed on: a credential for its agent, its lineage, what may be spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.authority import CLAIMS, Terms
from gateway.identity import Principal
from gateway.messages import Fields
from gateway.packet import fields as names
from gateway.packet.packet import lowered_budget
from gateway.refusal import Reason, Refusal

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

_MISSING: Final = "missing"
"""Counted for the claim where a rule requires a credential, and there is none."""


class Minting:
    """Gives credentials to agents, and counts them."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """By what became of one, and, where it was refused, by the claim that was amiss."""

    def refused(self, refusal: Refusal) -> None:
        """A packet was refused; it is counted if its credential was the reason."""
        match refusal.reason:
            case Reason.CREDENTIAL_INVALID | Reason.CREDENTIAL_INSUFFICIENT:
                claim = refusal.detail.partition(": ")[0]
                self.counts["refused", claim if claim in CLAIMS else _MISSING] += 1
            case Reason.HOPS_EXHAUSTED:
                self.counts["refused", "bud"] += 1
            case Reason.LINEAGE_LOOP:
                self.counts["refused", "act"] += 1

    def handed_on(self, exchange: Exchange, peer: Principal | None, fields: Fields) -> Fields:
        """`fields` as they go to the agent of `exchange`.

        Whose rule grants nothing is told where the work comes from, and given nothing to hand it on with; nor is one
        whose certificate the connection has not shown: there is nothing to bind a credential to.

        Args:
            exchange: its packet holds a credential, or comes under a grant.
            peer: whom the agent's certificate has shown.
            fields: the header fields that go on.

        """
        plane, forward, agent, caller = exchange.plane, exchange.forward, exchange.agent, exchange.downstream.principal
        authority = plane.snapshot.authority
        assert forward is not None
        assert agent is not None
        assert caller is not None
        meter = exchange.meter
        if authority is None:
            return _lowered(fields, meter.reserved) if meter is not None else fields
        now = plane.clock()
        grants = exchange.route.grants[agent.name].grants
        terms = authority.narrow(forward.held, forward.packet, caller.id, grants, now)
        if meter is not None:
            terms = _within(terms, meter.reserved)
        exchange.terms = terms
        exchange.given = ""
        onward = _told(terms, fields)
        if not grants:
            return onward
        if agent.spiffe_id is None or peer is None:
            self.counts["unbound", ""] += 1
            return onward
        jti = exchange.given = exchange.credential_id
        token = authority.mint(terms, now, jti=jti, audience=agent.spiffe_id, thumbprint=peer.thumbprint)
        onward.append((names.CREDENTIAL, token))
        self.counts["minted", ""] += 1
        return onward


def _within(terms: Terms, reserved: Mapping[str, int]) -> Terms:
    """`terms` with no more to spend than is `reserved`."""
    budget = {unit: min(amount, reserved.get(unit, amount)) for unit, amount in terms.budget.items()}
    return msgspec.structs.replace(terms, budget=budget)


def _told(terms: Terms, fields: Fields) -> Fields:
    """`fields` with the lineage, and with what is left to spend instead of what the caller says."""
    onward = _lowered(fields, terms.budget)
    onward.append((names.LINEAGE, b", ".join([names.sf_string(each) for each in terms.lineage])))
    return onward


def _lowered(fields: Fields, budget: Mapping[str, int]) -> Fields:
    """`fields` with a ``flight-budget`` of no more than `budget`."""
    raw = b", ".join([value for name, value in fields if name == names.BUDGET])
    onward = [item for item in fields if item[0] != names.BUDGET]
    onward.append((names.BUDGET, lowered_budget(raw, budget)))
    return onward
