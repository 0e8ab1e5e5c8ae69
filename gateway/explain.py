"""Why a packet would be handed on or refused: every rule held against it, and every agent.  Pure.

Enters: what a decision reads.  Leaves: an `Explanation`, plain values that can be printed or sent as JSON.
The verdict in it is `decide`'s own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from gateway.authority import NO_AUTHORITY, Credential, CredentialError
from gateway.decision import Evidence, Forward, Shadow, Snapshot, Verdict, decide
from gateway.headers import field_value
from gateway.identity import Principal, parse_spiffe_id
from gateway.judgement import carried_by
from gateway.messages import Fields, RequestHead
from gateway.packet import FlightPacket
from gateway.packet import fields as names
from gateway.policy import Allow, CompiledRule, Outcome, PacketFacts, Ruling, rule_on, weigh
from gateway.policy.brokering import Brokering
from gateway.policy.facts import ON_PACKETS, assumed_evidence
from gateway.policy.model import Require
from gateway.routing import Agent, AgentState


class Hypothesis(NamedTuple):
    """A packet that nobody has sent, for `explain`."""

    head: RequestHead
    principal: Principal
    assume: Evidence | None


def hypothesis(
    caller: str,
    headers: Iterable[str],
    *,
    method: str = "POST",
    path: str = "/",
    authority: str = "gateway.flight.internal",
    signer: str | None = None,
) -> Hypothesis:
    """A packet as a person describes it.

    Args:
        caller: its sender's SPIFFE id.
        headers: its header fields, each as ``name: value``.
        method: of the request.
        path: of the request.
        authority: the host that the request is for.
        signer: the SPIFFE id of whoever is supposed to have signed all of it; without one, proof is looked for in it.

    Raises:
        ValueError: a part cannot be read; the message says which, and what was expected.

    """
    fields: Fields = []
    for each in headers:
        name, separator, value = each.partition(":")
        if not (separator and name.strip()):
            raise ValueError(f"header {each!r}: expected 'name: value'")
        fields.append((name.strip().lower().encode(), value.strip().encode()))
    principal = Principal(parse_spiffe_id(caller))
    assume = assumed_evidence(parse_spiffe_id(signer), fields) if signer else None
    return Hypothesis(
        RequestHead(method.encode(), b"https", authority.encode(), path.encode(), fields), principal, assume
    )


class RuleConsidered(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule, held against one capability of a packet."""

    capability: str
    policy: str
    rule: str
    effect: str
    """``allow``, ``ask`` or ``deny``."""
    mode: str
    """``enforce`` or ``shadow``."""
    speaks: bool
    """The policy speaks about the capability."""
    caller: bool
    """The rule's ``from`` covers the caller."""
    verdict: str
    """What the rule says, for people."""
    when: str = ""
    """Its condition."""
    when_is: str = ""
    """``true``, ``false``, or why that cannot be told; empty where the rule does not get that far."""
    require: str = ""
    """What it requires."""
    require_is: str = ""
    """``met``, or what is missing."""


class AgentConsidered(msgspec.Struct, frozen=True, omit_defaults=True):
    """One agent, and whether the packet could go to it."""

    name: str
    eligible: bool
    why: str
    policy: str = ""
    """Of the rule that admits it; so is `rule`."""
    rule: str = ""


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The verdict on a packet, and all that went into it."""

    revision: str
    allow: bool
    caller: str = ""
    flight_id: str = ""
    capabilities: tuple[str, ...] = ()
    agent: str = ""
    """Where it goes."""
    policy: str = ""
    """Of the rule that decided; so is `rule`."""
    rule: str = ""
    asks: tuple[str, ...] = ()
    """The rules of which somebody has to approve it first, as ``policy/rule``."""
    status: int = 0
    """Of the refusal; so are `reason` and `detail`."""
    reason: str = ""
    detail: str = ""
    rules: tuple[RuleConsidered, ...] = ()
    agents: tuple[AgentConsidered, ...] = ()
    shadow: Shadow | None = None
    credential: str = ""
    """What the packet's handoff credential lets it do, or why it does not hold; empty when it has none."""


def explain(
    head: RequestHead,
    principal: Principal | None,
    snapshot: Snapshot,
    now: float,
    entropy: Callable[[int], int],
    *,
    assume: Evidence | None = None,
    held: Credential | None = None,
    destination: str = "",
) -> Explanation:
    """Decide a packet and say why; the arguments are those of `decide`."""
    credential = _told(held, now) if held is not None else ""
    if held is None:
        held, credential = _shown(head, principal, snapshot, now)
    verdict = decide(head, principal, snapshot, now, entropy, assume=assume, held=held, destination=destination)
    packet = verdict.packet
    told = Explanation(
        revision=snapshot.revision,
        allow=isinstance(verdict, Forward),
        caller=principal.id if principal else "",
        flight_id=packet.id if packet else "",
        capabilities=packet.capabilities.names if packet else (),
        shadow=verdict.shadow,
        credential=credential,
        **_outcome(verdict),
    )
    if packet is None or principal is None:
        return told
    facts = PacketFacts(packet, head, principal, verdict.evidence, now, verdict.held)
    candidates = snapshot.policies.candidates(principal.id, packet.capabilities.names)
    codes = weigh(candidates, facts)
    outcomes = {rule.number: Outcome(code) for rule, code in zip(candidates.conditional, codes, strict=True)}
    carried = carried_by(principal, verdict.evidence)
    ruling = rule_on(principal, candidates, codes, carried=carried)
    return msgspec.structs.replace(
        told,
        rules=tuple(
            _rule(rule, capability, facts, _came_to(rule, outcomes, carried=carried))
            for capability in packet.capabilities.names
            for rule in snapshot.policies.rules
        ),
        agents=tuple(_agent(agent, packet, ruling, snapshot.brokering) for agent in snapshot.agents),
    )


def _shown(
    head: RequestHead, principal: Principal | None, snapshot: Snapshot, now: float
) -> tuple[Credential | None, str]:
    """The handoff credential in `head`, and what there is to say of it.

    Of a hypothetical caller the certificate is not known: it is supposed to be the one that the credential is bound to.
    """
    raw, authority = field_value(head.fields, names.CREDENTIAL), snapshot.authority
    if raw is None or principal is None:
        return None, ""
    if authority is None:
        return None, NO_AUTHORITY.detail
    try:
        held = authority.verify(raw, principal, now, bound=bool(principal.certificate))
    except CredentialError as error:
        return None, str(error)
    return held, _told(held, now)


def _told(held: Credential, now: float) -> str:
    capabilities = ", ".join(pattern.text for pattern in held.capabilities) or "nothing"
    budget = ", ".join(f"{unit}={amount}" for unit, amount in held.budget.items()) or "whatever policy lets it"
    life = f" for {held.expires - now:.0f} s" if held.expires > now else ""
    lineage = " -> ".join(held.lineage)
    return f"holds{life}: may ask for {capabilities}, may spend {budget}; the work came through {lineage}"


def _came_to(rule: CompiledRule, outcomes: dict[int, Outcome], *, carried: bool) -> Outcome:
    outcome = outcomes.get(rule.number, Outcome.HOLDS)
    foreign = carried and not rule.denies and not rule.carries
    return Outcome.CARRIED if foreign and outcome is Outcome.HOLDS else outcome


def _outcome(verdict: Verdict) -> dict[str, Any]:
    if isinstance(verdict, Forward):
        granted = verdict.route.grants[verdict.agent.name]
        asks = tuple(ask.name for ask in granted.approvals)
        return {"agent": verdict.agent.name, "policy": granted.policy, "rule": granted.rule, "asks": asks}
    refusal = verdict.refusal
    return {
        "status": refusal.reason.status,
        "reason": refusal.reason.slug,
        "detail": refusal.detail,
        "policy": refusal.policy,
        "rule": refusal.rule,
    }


def _rule(rule: CompiledRule, capability: str, facts: PacketFacts, outcome: Outcome) -> RuleConsidered:
    spec = rule.spec
    speaks = any(pattern.matches(capability) for pattern in rule.capabilities)
    caller = any(pattern.matches(facts.principal.id) for pattern in spec.from_)
    considered = RuleConsidered(
        capability=capability,
        policy=rule.policy,
        rule=rule.name,
        effect=spec.effect.value,
        mode="shadow" if rule.shadow else "enforce",
        speaks=speaks,
        caller=caller,
        verdict="the policy does not speak about this capability" if not speaks else "the caller is not in 'from'",
        when=spec.when.text if spec.when else "",
        require=_required(spec.require) if spec.require else "",
    )
    if not (speaks and caller):
        return considered
    when_is = require_is = ""
    if spec.when is not None:
        value = spec.when.evaluate(ON_PACKETS.bind(spec.when.variables, facts))
        when_is = value if isinstance(value, str) else str(value).lower()
    if spec.require is not None and outcome in _REQUIRE_IS:
        require_is = _REQUIRE_IS[outcome]
    return msgspec.structs.replace(
        considered, when_is=when_is, require_is=require_is, verdict=_verdict(rule, outcome, when_is)
    )


_REQUIRE_IS = {
    Outcome.HOLDS: "met",
    Outcome.UNSIGNED: "no signature that it accepts",
    Outcome.UNDIGESTED: "no content-digest, or not covered by the signature",
    Outcome.UNCREDENTIALED: "no handoff credential",
    Outcome.CONTEXTLESS: "no flight-context with a sha-256",
}


def _required(require: Require) -> str:
    parts: list[str] = []
    if require.signature:
        signers = require.signers or ()
        parts.append("signature by " + (" or ".join(each.text for each in signers) or "the caller"))
    if require.content_digest:
        parts.append("contentDigest")
    if require.credential:
        parts.append("credential")
    if require.context:
        parts.append("context")
    return ", ".join(parts)


def _verdict(rule: CompiledRule, outcome: Outcome, when_is: str) -> str:
    if outcome is Outcome.FALSE:
        return "'when' is false"
    if outcome is Outcome.CARRIED:
        return f"another has signed the packet, and the rule names no signers{_so(rule)}"
    if outcome in (Outcome.UNSIGNED, Outcome.UNDIGESTED, Outcome.UNCREDENTIALED, Outcome.CONTEXTLESS):
        return f"'require' is not met: {_REQUIRE_IS[outcome]}{_so(rule)}"
    if outcome is Outcome.FAILED and not (rule.denies or rule.ask):
        return f"'when' cannot be evaluated, so it does not allow: {when_is}"
    if rule.denies or outcome is Outcome.FAILED:
        what = "shuts out" if rule.narrow else "denies"
    elif rule.ask is not None:
        what = "allows, once approved," if rule.narrow else "allows once approved"
    else:
        what = "allows"
    if rule.narrow:
        what = f"{what} agents with {', '.join(_narrowing(rule))}"
    if outcome is Outcome.FAILED:
        what = f"{what}, as 'when' cannot be evaluated: {when_is}"
    return f"in shadow: {what}" if rule.shadow else what


def _so(rule: CompiledRule) -> str:
    """What comes of an ask that cannot be asked."""
    if rule.ask is None:
        return ""
    return ", so it shuts out the agents that it asks about" if rule.narrow else ", so it denies"


def _narrowing(rule: CompiledRule) -> Iterator[str]:
    if rule.min_trust:
        yield f"trust of at least {rule.min_trust}"
    for key, value in sorted(rule.labels):
        yield f"{key}={value}"
    if rule.spec.agent_when is not None:
        yield rule.spec.agent_when.text


def _agent(agent: Agent, packet: FlightPacket, ruling: Ruling, brokering: Brokering) -> AgentConsidered:
    wanted = packet.capabilities
    missing = [name for name in wanted.names if name not in agent.capabilities]
    if missing:
        return AgentConsidered(agent.name, False, f"lacks {', '.join(missing)}")
    if agent.trust < wanted.min_trust:
        return AgentConsidered(agent.name, False, f"trust {agent.trust} is below the packet's {wanted.min_trust}")
    state = f"{agent.state.value}, trust {agent.trust}"
    if not isinstance(ruling, Allow):
        return AgentConsidered(agent.name, False, f"capable, {state}; but the packet is refused")
    excluding = next((rule for rule in ruling.exclusions if rule.means(agent, ruling.principal)), None)
    if excluding is not None:
        return AgentConsidered(agent.name, False, f"shut out by {excluding.policy}/{excluding.name}")
    admitting = ruling.admits(agent)
    if not admitting:
        return AgentConsidered(agent.name, False, "; ".join(dict.fromkeys(_not_admitted(agent, ruling))))
    first = admitting[0]
    ready = agent.state is AgentState.READY
    asked = ", once it is approved" if any(rule.ask for rule in admitting) else ""
    why = f"{'eligible' if ready else 'not ready'}, {state}{asked}"
    brokered = brokering.of(wanted, agent)
    if brokered is not None and brokered.injections:
        why += f"; it is given the secret of {', '.join(each.document for each in brokered.injections)}"
        if agent.spiffe_id is None:
            why += ", and gets nothing, since nothing shows who it is"
    return AgentConsidered(agent.name, ready, why, first.policy, first.name)


def _not_admitted(agent: Agent, allow: Allow) -> Iterator[str]:
    for rules in allow.allowing:
        unclear = [rule for rule in rules if rule.ask and _unclear(rule, agent, allow.principal)]
        if unclear or not any(rule.covers(agent, allow.principal) for rule in rules):
            for rule in unclear or rules:
                yield f"{rule.policy}/{rule.name}: {_falls_short(agent, rule, allow.principal)}"


def _unclear(rule: CompiledRule, agent: Agent, principal: Principal) -> bool:
    return rule.means(agent, principal) and not rule.covers(agent, principal)


def _falls_short(agent: Agent, rule: CompiledRule, principal: Principal) -> str:
    if agent.trust < rule.min_trust:
        return f"trust {agent.trust} is below {rule.min_trust}"
    lacking = sorted(rule.labels.difference(agent.labels))
    if lacking:
        return "is not labelled " + ", ".join(f"{key}={value}" for key, value in lacking)
    holds = rule.agent_condition(agent, principal)
    return "'agentWhen' is false" if holds is False else f"'agentWhen' cannot be evaluated: {holds}"
