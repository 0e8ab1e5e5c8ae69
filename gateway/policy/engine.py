"""Evaluating a set of TrustPolicy documents.

A packet is let through when every capability that it asks for is covered by an allow rule, and no deny rule
matches any of them: a deny anywhere wins, and silence is a refusal.  ``to`` and ``agentWhen`` narrow which
agents an allow admits, or which agents a deny shuts out; a deny without them refuses the packet.

An ask is an allow on which somebody has to agree, and no other rule takes that back: every ask that matches is
asked, and one whose condition fails or whose requirements are not met denies what it would have asked about.

Three steps, so that each is done once for all packets that it is the same for: `PolicySet.candidates` finds
the rules for a sender and its capabilities; `weigh` holds their conditions against one packet; `rule_on` says
what follows, which depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import msgspec

from gateway.identity import Principal, SpiffeId
from gateway.policy.cel import Expression
from gateway.policy.facts import ON_PACKETS, PacketFacts
from gateway.policy.model import TrustPolicy
from gateway.policy.patterns import GlobIndex
from gateway.policy.rules import CompiledRule, Outcome, compile_rules, requirement
from gateway.routing.agent import Agent

Outcomes = bytes
"""The `Outcome` of each rule of `Candidates.conditional`, in that order."""


class Candidates(msgspec.Struct, frozen=True):
    """The rules that can matter to the packets of one sender that ask for certain capabilities."""

    by_capability: tuple[tuple[str, tuple[CompiledRule, ...]], ...]
    """In the packet's order of capabilities."""
    conditional: tuple[CompiledRule, ...]
    """Those among them that must be held against each packet."""
    variables: frozenset[str]
    """What their conditions may read."""
    shadow: bool
    """Whether any of them is in a shadow policy."""


class Allow(msgspec.Struct, frozen=True):
    """The packet may go to agents that `admits` lets in."""

    principal: Principal
    allowing: tuple[tuple[CompiledRule, ...], ...]
    """For each capability in the packet's order, the allow and ask rules that cover it; none is empty."""
    exclusions: tuple[CompiledRule, ...]
    """Deny rules that shut out some agents, and ask rules that cannot be asked about some."""

    @property
    def key(self) -> Hashable:
        """The same for rulings of one set of policies that admit the same agents, whoever the sender is."""
        rules = (*self.exclusions, *(rule for each in self.allowing for rule in each))
        asks_for_sender = any(rule.asks_agents_for_sender for rule in rules)
        return (
            tuple(tuple(rule.number for rule in each) for each in self.allowing),
            tuple(rule.number for rule in self.exclusions),
            self.principal.id if asks_for_sender else "",
        )

    def admits(self, agent: Agent) -> tuple[CompiledRule, ...]:
        """The rules that let the packet go to `agent`: for a capability all that ask, or one that allows without.

        Empty when they do not.
        """
        for exclusion in self.exclusions:
            if exclusion.means(agent, self.principal):
                return ()
        admitting: list[CompiledRule] = []
        for rules in self.allowing:
            allowing: CompiledRule | None = None
            asking: list[CompiledRule] = []
            for rule in rules:
                if rule.ask is None:
                    if allowing is None and rule.covers(agent, self.principal):
                        allowing = rule
                elif rule.covers(agent, self.principal):
                    asking.append(rule)
                elif rule.means(agent, self.principal):
                    return ()  # whether it is to be asked cannot be told
            if asking:
                admitting += asking
            elif allowing is not None:
                admitting.append(allowing)
            else:
                return ()
        return tuple(admitting)


class Deny(msgspec.Struct, frozen=True):
    """The packet is refused, by a deny rule or because nothing allows one of its capabilities."""

    capability: str
    """The capability that was denied or that nothing allows."""
    rule: CompiledRule | None
    """The rule that denies; ``None`` when no rule allows."""
    short: tuple[tuple[CompiledRule, Outcome], ...] = ()
    """Rules that would have allowed, or a deny that could not be evaluated, and what is amiss."""


Ruling = Allow | Deny


class PolicySet:
    """Compiled policies; the order in which they were read makes no difference."""

    __slots__ = ("_callers", "_capabilities", "policies", "rules")

    def __init__(self, policies: Iterable[TrustPolicy]) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: policy.metadata.name))
        self.rules = compile_rules(self.policies)
        self._callers = GlobIndex((glob, rule.number) for rule in self.rules for glob in rule.spec.from_)
        self._capabilities = GlobIndex((glob, rule.number) for rule in self.rules for glob in rule.capabilities)

    def candidates(self, caller: SpiffeId, capabilities: Iterable[str]) -> Candidates:
        """The rules whose ``from`` covers `caller` and whose policy speaks about one of `capabilities`."""
        from_caller = self._callers.matching(caller)
        by_capability = tuple(
            (capability, self._numbered(from_caller & self._capabilities.matching(capability)))
            for capability in capabilities
        )
        # A rule may speak about several of the capabilities; its condition is one.
        rules = dict.fromkeys(rule for _, each in by_capability for rule in each)
        conditional = tuple(rule for rule in rules if rule.conditional)
        variables: set[str] = set()
        for rule in conditional:
            if rule.spec.when is not None:
                variables |= rule.spec.when.variables
        return Candidates(by_capability, conditional, frozenset(variables), any(rule.shadow for rule in rules))

    def _numbered(self, mask: int) -> tuple[CompiledRule, ...]:
        found: list[CompiledRule] = []
        while mask:
            lowest = mask & -mask
            found.append(self.rules[lowest.bit_length() - 1])
            mask ^= lowest
        return tuple(found)


def weigh(candidates: Candidates, facts: PacketFacts) -> Outcomes:
    """Hold the conditions and requirements of `candidates` against one packet."""
    bindings = ON_PACKETS.bind(candidates.variables, facts)
    values: dict[Expression, bool | str] = {}
    outcomes = bytearray()
    for rule in candidates.conditional:
        outcome = Outcome.HOLDS
        when = rule.spec.when
        if when is not None:
            value = values.get(when)
            if value is None:
                value = values[when] = when.evaluate(bindings)
            if value is not True:
                outcome = Outcome.FALSE if value is False else Outcome.FAILED
        require = rule.spec.require
        if require is not None and outcome is Outcome.HOLDS:
            outcome = requirement(require, facts.principal, facts.evidence, facts.packet, facts.held)
        outcomes.append(outcome)
    return bytes(outcomes)


def rule_on(
    principal: Principal,
    candidates: Candidates,
    outcomes: Outcomes,
    *,
    shadow: bool = False,
    carried: bool = False,
) -> Ruling:
    """What `candidates` say, given what their conditions came to.

    Args:
        principal: the sender.
        candidates: its rules.
        outcomes: from `weigh`.
        shadow: suppose that the shadow policies were enforced.
        carried: somebody else has signed the packet, so that only a rule that names signers can allow it.

    """
    came_to = {rule.number: Outcome(code) for rule, code in zip(candidates.conditional, outcomes, strict=True)}
    allowing: list[tuple[CompiledRule, ...]] = []
    exclusions: list[CompiledRule] = []
    silent: Deny | None = None
    for capability, rules in candidates.by_capability:
        allows: list[CompiledRule] = []
        short: list[tuple[CompiledRule, Outcome]] = []
        unasked: Deny | None = None
        for rule in rules:
            outcome = came_to.get(rule.number, Outcome.HOLDS)
            if outcome is Outcome.FALSE or (rule.shadow and not shadow):
                continue
            if not rule.denies:
                if outcome is Outcome.HOLDS and carried and not rule.carries:
                    outcome = Outcome.CARRIED
                if outcome is Outcome.HOLDS:
                    allows.append(rule)
                elif rule.ask is None:
                    short.append((rule, outcome))
                elif rule.narrow:
                    exclusions.append(rule)
                elif outcome is Outcome.FAILED:
                    return Deny(capability, rule, ((rule, outcome),))
                else:
                    unasked = unasked or Deny(capability, None, ((rule, outcome),))
            elif rule.narrow:
                exclusions.append(rule)
            else:
                return Deny(capability, rule, ((rule, outcome),) if outcome is Outcome.FAILED else ())
        if unasked is not None:
            silent = silent or unasked
        elif not allows and silent is None:
            silent = Deny(capability, None, tuple(short))
        allowing.append(tuple(allows))
    return silent or Allow(principal, tuple(allowing), tuple(exclusions))
