"""The judgement: what policies and members say of one packet, whichever conversation it is of.  Pure.

Enters: a packet, its sender, what is proven about it, a `Snapshot`, the time.  Leaves: a `Judgement`.
What was judged once is remembered in the snapshot, by the inputs that it was judged on, and goes with it.
"""

from __future__ import annotations

import msgspec

from gateway.authority import Authority, Credential
from gateway.identity import Principal
from gateway.messages import RequestHead
from gateway.packet import Capabilities, FlightPacket
from gateway.policy import (
    Candidates,
    CompiledRule,
    Deny,
    Evidence,
    Outcome,
    PacketFacts,
    Ruling,
    rule_on,
    weigh,
)
from gateway.refusal import Reason, Refusal
from gateway.routes import Route
from gateway.snapshot import Case, Judgement, Shadow, Snapshot

NO_AGENT_RETRY_AFTER_S = 1

_MAX_CASES = 10_000
_MAX_JUDGEMENTS = 64
"""In one case."""


def judge(
    packet: FlightPacket,
    head: RequestHead,
    principal: Principal,
    evidence: Evidence,
    snapshot: Snapshot,
    now: float,
    held: Credential | None = None,
) -> Judgement:
    """Judge a packet that has been read already, be it new or a stream that has long been open.

    Args:
        packet: what was read from `head`.
        head: the request as it arrived.
        principal: the authenticated caller.
        evidence: what is proven about the packet.
        snapshot: what is in force.
        now: seconds since the epoch.
        held: the handoff credential that came with it, verified.

    """
    key = (principal.id, packet.capabilities)
    case = snapshot.cases.get(key)
    if case is None:
        if len(snapshot.cases) >= _MAX_CASES:
            snapshot.cases.clear()
        candidates = snapshot.policies.candidates(principal.id, packet.capabilities.names)
        case = snapshot.cases[key] = Case(candidates, {})
    candidates = case.candidates
    outcomes = b""
    carried = carried_by(principal, evidence)
    if candidates.conditional:
        outcomes = weigh(candidates, PacketFacts(packet, head, principal, evidence, now, held))
    judged_on = (outcomes, carried)
    judgement = case.judgements.get(judged_on)
    if judgement is None:
        if len(case.judgements) >= _MAX_JUDGEMENTS:
            case.judgements.clear()
        judgement = _settle(principal, packet.capabilities, candidates, outcomes, snapshot, carried=carried)
        case.judgements[judged_on] = judgement
    if snapshot.authority is not None:
        return _without_loops(judgement, snapshot.authority, held, principal, packet.capabilities, snapshot)
    return judgement


def carried_by(principal: Principal, evidence: Evidence) -> bool:
    """Whether `principal` brings what somebody else has signed."""
    return evidence.signer is not None and evidence.signer != principal.id


def _without_loops(
    judgement: Judgement,
    authority: Authority,
    held: Credential | None,
    principal: Principal,
    capabilities: Capabilities,
    snapshot: Snapshot,
) -> Judgement:
    """`judgement` without the agents that the work has visited as often as it may.

    Where nothing is held and nothing granted no work is handed on, and a caller may ask its like.
    """
    routes = snapshot.routes
    visited = [routes.shown_by.get(one, ()) for one in authority.loops(held, principal.id)]
    granted = judgement.grants
    names = frozenset(
        name for each in visited for name in each if name in granted and (held is not None or granted[name].grants)
    )
    if not names:
        return judgement  # as almost all
    loop = Refusal(
        Reason.LINEAGE_LOOP,
        f"the work has been with every agent that it could go to for {capabilities.label}; ask somebody else",
    )
    ways = [each for each in (judgement.route, judgement.leaving) if isinstance(each, Route)]
    left = {id(each): routes.avoiding(each, names) for each in ways}
    route, leaving = judgement.route, judgement.leaving
    if isinstance(route, Route):
        route = left[id(route)] or loop
    if leaving is not None:
        leaving = left[id(leaving)]
        route = route if leaving is not None else loop
    return msgspec.structs.replace(judgement, route=route, leaving=leaving)


def _settle(
    principal: Principal,
    capabilities: Capabilities,
    candidates: Candidates,
    outcomes: bytes,
    snapshot: Snapshot,
    *,
    carried: bool,
) -> Judgement:
    enforced = _conclude(rule_on(principal, candidates, outcomes, carried=carried), principal, capabilities, snapshot)
    if not candidates.shadow:
        return enforced
    ruling = rule_on(principal, candidates, outcomes, shadow=True, carried=carried)
    supposed = _conclude(ruling, principal, capabilities, snapshot)
    if _destinations(enforced) == _destinations(supposed) and _asks(enforced) == _asks(supposed):
        return enforced
    route = supposed.route
    shadow = Shadow(
        allow=isinstance(route, Route),
        rules=_shadow_rules(candidates, outcomes),
        reason=route.reason.slug if isinstance(route, Refusal) else "",
        agents=_destinations(supposed),
        asks=tuple(name for name in _asks(supposed) if name not in _asks(enforced)),
    )
    return msgspec.structs.replace(enforced, shadow=shadow)


def _destinations(judgement: Judgement) -> tuple[str, ...]:
    """The agents that a packet may be sent to now; none when it is refused."""
    route = judgement.route
    return () if isinstance(route, Refusal) else tuple(agent.name for agent in route.ring.agents)


def _asks(judgement: Judgement) -> tuple[str, ...]:
    """The rules that ask before a packet may go to any of its destinations."""
    asks = (ask.name for name in _destinations(judgement) for ask in judgement.grants[name].approvals)
    return tuple(dict.fromkeys(asks))


def _shadow_rules(candidates: Candidates, outcomes: bytes) -> tuple[str, ...]:
    off = {
        rule.number
        for rule, outcome in zip(candidates.conditional, outcomes, strict=True)
        if outcome == Outcome.FALSE or (outcome != Outcome.HOLDS and not (rule.denies or rule.ask))
    }
    rules = dict.fromkeys(rule for _, each in candidates.by_capability for rule in each)
    return tuple(f"{rule.policy}/{rule.name}" for rule in rules if rule.shadow and rule.number not in off)


def _conclude(ruling: Ruling, principal: Principal, capabilities: Capabilities, snapshot: Snapshot) -> Judgement:
    """From what policy says to agents.

    Policy speaks first, so that a caller who may not use a capability never learns whether anybody has it.
    """
    if isinstance(ruling, Deny):
        return Judgement(_refusal(ruling, principal))
    admitted = snapshot.routes.admitted(ruling, capabilities)
    if admitted.route is not None:
        return Judgement(admitted.route, admitted.grants)
    label = capabilities.label
    if not admitted.capable and not any(admitted.wanted <= offered for offered in snapshot.offered):
        detail = f"no agent offers {label}; check the spelling, or ask for less"
        return Judgement(Refusal(Reason.CAPABILITY_UNKNOWN, detail))
    why = (
        "the agents that offer it are not ready; try again later"
        if admitted.grants or not admitted.capable
        else "no agent that offers it meets the trust, labels and conditions that policy or the packet asks for"
    )
    refusal = Refusal(Reason.NO_ELIGIBLE_AGENT, f"{label}: {why}", retry_after_s=NO_AGENT_RETRY_AFTER_S)
    return Judgement(refusal, admitted.grants, leaving=admitted.leaving(snapshot.routes.members, refusal))


_MISSING = {
    Outcome.UNSIGNED: "a signature by the caller, or by one whom the rule accepts",
    Outcome.CARRIED: "the caller's own signature, or none: it names nobody whose packets others may carry",
    Outcome.UNDIGESTED: "a content-digest, covered by the signature where one is required",
    Outcome.UNCREDENTIALED: "a handoff credential",
    Outcome.CONTEXTLESS: "a flight-context that gives the context's sha-256",
}
_WHICH = {
    Outcome.UNCREDENTIALED: Reason.CREDENTIAL_INSUFFICIENT,
    Outcome.CONTEXTLESS: Reason.CONTEXT_MISSING,
}


_EFFECT = {True: "a deny", False: "an ask"}


def _refusal(deny: Deny, principal: Principal) -> Refusal:
    """How a sender is told of `deny`: the rule's name, and nothing else of what it says."""
    rule = deny.rule
    if rule is not None:
        why = f"; its condition could not be evaluated, and such {_EFFECT[rule.denies]} denies" if deny.short else ""
        detail = f"a rule denies {deny.capability} to {principal.id}{why}"
        return Refusal(Reason.DENIED_BY_POLICY, detail, rule.policy, rule.name)
    failed = [short for short, outcome in deny.short if outcome is Outcome.FAILED]
    also = f"; the condition of {_named(failed)} could not be evaluated" if failed else ""
    for short, outcome in deny.short:
        if outcome in _MISSING:
            detail = f"{short.policy}/{short.name} allows {deny.capability} only with {_MISSING[outcome]}{also}"
            reason = _WHICH.get(outcome, Reason.SIGNATURE_INVALID)
            return Refusal(reason, detail, short.policy, short.name)
    if failed:
        detail = f"nothing else allows {principal.id} to use {deny.capability}{also}"
        return Refusal(Reason.NO_POLICY_ALLOWS, detail, failed[0].policy, failed[0].name)
    return Refusal(
        Reason.NO_POLICY_ALLOWS,
        f"no policy allows {principal.id} to use {deny.capability}; ask for a rule that does, "
        "or check the spelling of the capability",
    )


def _named(rules: list[CompiledRule]) -> str:
    return ", ".join(f"{rule.policy}/{rule.name}" for rule in rules)
