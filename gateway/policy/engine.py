"""Evaluating a set of TrustPolicy documents.

A packet is let through when every capability that it asks for is covered by an allow rule, and no deny rule
matches any of them: a deny anywhere wins, and silence is a refusal.  A rule's ``to`` narrows which agents an
allow admits, or which agents a deny shuts out; a deny without ``to`` refuses the packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.identity import Principal
from gateway.policy.model import Effect, Rule, To, TrustPolicy
from gateway.routing.agent import Agent


@dataclass(frozen=True, slots=True)
class Grant:
    """An allow or deny rule that matched, and the policy it stands in."""

    policy: str
    rule: str
    to: To | None = None

    def covers(self, agent: Agent) -> bool:
        """Whether `agent` is within the rule's ``to``."""
        if self.to is None:
            return True
        if agent.trust < self.to.min_trust:
            return False
        return self.to.labels.items() <= dict(agent.labels).items()


@dataclass(frozen=True, slots=True)
class Allow:
    """The packet may go to agents that `admits` lets in."""

    grants: tuple[tuple[Grant, ...], ...]
    """For each capability in the packet's order, the allow rules that cover it; none is empty."""
    exclusions: tuple[Grant, ...]
    """Deny rules that shut out some agents."""

    def admits(self, agent: Agent) -> Grant | None:
        """The rule that lets the packet go to `agent` (that of the first capability), or ``None``."""
        if any(exclusion.covers(agent) for exclusion in self.exclusions):
            return None
        first: Grant | None = None
        for grants in self.grants:
            grant = next((each for each in grants if each.covers(agent)), None)
            if grant is None:
                return None
            first = first or grant
        return first


@dataclass(frozen=True, slots=True)
class Deny:
    """The packet is refused, by a deny rule or because nothing allows one of its capabilities."""

    grant: Grant | None
    """The deny rule; ``None`` when no rule allows."""
    capability: str
    """The capability that was denied or that nothing allows."""


Ruling = Allow | Deny


@dataclass(frozen=True, slots=True)
class Consideration:
    """One rule held against a packet, for `explain`."""

    policy: str
    rule: Rule
    capability: str
    speaks: bool
    """The policy speaks about the capability."""
    caller: bool
    """The rule's ``from`` covers the caller."""


class PolicySet:
    """Compiled policies; the order in which they were read makes no difference."""

    __slots__ = ("policies",)

    def __init__(self, policies: Iterable[TrustPolicy]) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: policy.metadata.name))

    def rule_on(self, principal: Principal, capabilities: Iterable[str]) -> Ruling:
        """What the policies say of `principal` asking for `capabilities`, all of them."""
        grants: list[tuple[Grant, ...]] = []
        exclusions: list[Grant] = []
        silent: str | None = None
        for capability in capabilities:
            allowing: list[Grant] = []
            for considered in self._matching(principal, capability):
                rule = considered.rule
                grant = Grant(considered.policy, rule.name, rule.to)
                if rule.effect is Effect.ALLOW:
                    allowing.append(grant)
                elif rule.to is None:
                    return Deny(grant, capability)
                else:
                    exclusions.append(grant)
            if not allowing and silent is None:
                silent = capability
            grants.append(tuple(allowing))
        if silent is not None:
            return Deny(None, silent)
        return Allow(tuple(grants), tuple(exclusions))

    def consider(self, principal: Principal, capability: str) -> Iterable[Consideration]:
        """Every rule, matching or not, in the order of evaluation."""
        for policy in self.policies:
            speaks = any(pattern.matches(capability) for pattern in policy.spec.capabilities)
            for rule in policy.spec.rules:
                caller = any(pattern.matches(principal.id) for pattern in rule.from_)
                yield Consideration(policy.metadata.name, rule, capability, speaks, caller)

    def _matching(self, principal: Principal, capability: str) -> Iterable[Consideration]:
        return (each for each in self.consider(principal, capability) if each.speaks and each.caller)
