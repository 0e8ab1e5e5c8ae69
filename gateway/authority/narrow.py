"""Handing work on: what the next agent may do with it.  It can only narrow.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from gateway.authority.credential import Credential
from gateway.identity import SpiffeId
from gateway.packet import FlightPacket
from gateway.policy.model import Grant
from gateway.policy.patterns import CapabilityPattern

HOPS: Final = "hops"
"""The unit of a budget that is spent by handing work on: one each time."""


class Terms(msgspec.Struct, frozen=True):
    """What a credential for the next agent says, whoever that is."""

    parent: str
    root: str
    conversation: str
    subject: SpiffeId
    lineage: tuple[SpiffeId, ...]
    """With whoever hands it on now, who is the last."""
    capabilities: tuple[CapabilityPattern, ...]
    budget: Mapping[str, int]
    """What is left once it has been handed on; always with `HOPS`."""
    expires: float
    """Seconds since the epoch."""


def lineage_of(held: Credential | None, caller: SpiffeId) -> tuple[SpiffeId, ...]:
    """Whom a packet of `caller` has passed through, oldest first, with the caller itself."""
    return (*held.lineage, caller) if held is not None else (caller,)


def hops_left(held: Credential | None, packet: FlightPacket, most: int) -> int:
    """How many times the work may be handed on yet, this time included; `most` where nothing says less."""
    left = min(most, packet.budget.get(HOPS, most))
    return left if held is None else min(left, held.budget.get(HOPS, most))


def narrow(
    held: Credential | None,
    packet: FlightPacket,
    caller: SpiffeId,
    grants: Sequence[Grant],
    now: float,
    *,
    max_ttl_s: float,
    max_hops: int,
) -> Terms:
    """What the next agent may do: no more than was held, was asked for, and is granted by each rule.

    Args:
        held: the credential that came with the packet, verified.
        packet: what is handed on.
        caller: whose packet it is.
        grants: of the rules that let it go; without one nothing may be asked of others.
        now: seconds since the epoch.
        max_ttl_s: no credential lives longer.
        max_hops: for work that nothing else bounds.

    """
    budget = _least(
        (held.budget if held is not None else {}, packet.budget, *(grant.budget for grant in grants)),
    )
    # A grant says how far the receiver may go on, so that this hop is not counted in it.
    left = hops_left(held, packet, max_hops) - 1
    budget[HOPS] = min([left, *(grant.budget[HOPS] for grant in grants if HOPS in grant.budget)])
    expires = now + min([max_ttl_s, *(grant.ttl_s for grant in grants)])
    sets = [grant.capabilities for grant in grants]
    if held is not None:
        sets.append(held.capabilities)
        expires = min(expires, held.expires)
    capabilities = sets[0] if grants else ()
    for each in sets[1:]:
        capabilities = common(capabilities, each)
    return Terms(
        parent=held.id if held is not None else "",
        root=held.root if held is not None else packet.id,
        conversation=(held.conversation if held is not None else "") or packet.conversation,
        subject=held.subject if held is not None else caller,
        lineage=lineage_of(held, caller),
        capabilities=capabilities,
        budget=budget,
        expires=expires,
    )


def _least(budgets: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The least of each unit that any of them bounds."""
    least: dict[str, int] = {}
    for budget in budgets:
        for unit, amount in budget.items():
            least[unit] = min(amount, least.get(unit, amount))
    return least


@lru_cache(maxsize=4096)
def common(some: tuple[CapabilityPattern, ...], others: tuple[CapabilityPattern, ...]) -> tuple[CapabilityPattern, ...]:
    """Patterns that cover what both cover; of two patterns that only overlap, nothing is kept."""
    found: dict[CapabilityPattern, None] = {}
    for one in some:
        for other in others:
            if one.includes(other):
                found[other] = None
            elif other.includes(one):
                found[one] = None
    return tuple(each for each in found if not any(other != each and other.includes(each) for other in found))
