"""One rule, compiled: whether it holds for a packet, and for an agent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import msgspec

from gateway.identity import Principal
from gateway.packet import fields as names
from gateway.policy.facts import ON_AGENTS, AgentFacts, Evidence
from gateway.policy.model import Effect, Grant, Mode, Per, Require, Rule, TrustPolicy
from gateway.policy.patterns import CapabilityPattern
from gateway.policy.rate import Rate
from gateway.routing.agent import Agent


class Outcome(IntEnum):
    """What a rule's condition and requirements come to for a packet."""

    HOLDS = 0
    FALSE = 1
    """``when`` is false."""
    FAILED = 2
    """``when`` could not be evaluated."""
    UNSIGNED = 3
    """There is no signature that ``require`` accepts."""
    UNDIGESTED = 4
    """There is no ``content-digest``, or the signature does not cover it."""
    CARRIED = 5
    """Somebody else has signed it, and the rule names no signers."""


class Limit(msgspec.Struct, frozen=True):
    """How often a rule allows; the counting is done elsewhere."""

    policy: str
    rule: str
    rate: Rate
    per: Per


@dataclass(frozen=True, slots=True, eq=False)
class CompiledRule:
    """A rule with what it needs of its policy, ready to be asked."""

    number: int
    """Its place in the order of policies' names, then of rules; the same whatever the files are called."""
    policy: str
    name: str
    spec: Rule
    capabilities: tuple[CapabilityPattern, ...]
    shadow: bool
    denies: bool
    conditional: bool
    """Whether it takes the packet itself, not only its sender and capabilities, to say that it holds."""
    narrow: bool
    """Whether it means some agents only."""
    min_trust: float
    labels: frozenset[tuple[str, str]]
    limit: Limit | None

    @property
    def carries(self) -> bool:
        """Whether it may let one principal bring what another has signed."""
        return self.spec.require is not None and self.spec.require.signers is not None

    @property
    def grant(self) -> Grant | None:
        """The terms for handing the work on."""
        return self.spec.grant

    @property
    def audited(self) -> bool:
        """Whether what it allows has to be recorded."""
        return self.spec.audit is not None

    @property
    def asks_agents_for_sender(self) -> bool:
        """Whether ``agentWhen`` reads who the sender is."""
        condition = self.spec.agent_when
        return condition is not None and any(name.startswith("principal.") for name in condition.variables)

    def covers(self, agent: Agent, principal: Principal) -> bool:
        """Whether the rule means `agent`.  An ``agentWhen`` that fails denies, and does not allow."""
        if agent.trust < self.min_trust or not self.labels.issubset(agent.labels):
            return False
        if self.spec.agent_when is None:
            return True
        holds = self.agent_condition(agent, principal)
        return holds is True or (holds is not False and self.denies)

    def agent_condition(self, agent: Agent, principal: Principal) -> bool | str:
        """What ``agentWhen`` says of `agent`; text says why that cannot be told."""
        condition = self.spec.agent_when
        if condition is None:
            return True
        return condition.evaluate(ON_AGENTS.bind(condition.variables, AgentFacts(agent, principal)))


def compile_rules(policies: tuple[TrustPolicy, ...]) -> tuple[CompiledRule, ...]:
    """The rules of `policies`, in their order."""
    rules = [(policy, rule) for policy in policies for rule in policy.spec.rules]
    return tuple(_compile(number, policy, rule) for number, (policy, rule) in enumerate(rules))


def _compile(number: int, policy: TrustPolicy, rule: Rule) -> CompiledRule:
    name = policy.metadata.name
    return CompiledRule(
        number=number,
        policy=name,
        name=rule.name,
        spec=rule,
        capabilities=policy.spec.capabilities,
        shadow=policy.spec.mode is Mode.SHADOW,
        denies=rule.effect is Effect.DENY,
        conditional=rule.when is not None or rule.require is not None,
        narrow=rule.to is not None or rule.agent_when is not None,
        min_trust=rule.to.min_trust if rule.to else 0.0,
        labels=frozenset(rule.to.labels.items() if rule.to else ()),
        limit=Limit(name, rule.name, rule.limits.rate, rule.limits.per) if rule.limits else None,
    )


def requirement(require: Require, principal: Principal, evidence: Evidence) -> Outcome:
    """Whether what a rule requires of a packet of `principal` is proven by `evidence`."""
    if require.signature:
        signer = evidence.signer
        if signer is None:
            return Outcome.UNSIGNED
        if require.signers is None:
            accepted = signer == principal.id
        else:
            accepted = any(pattern.matches(signer) for pattern in require.signers)
        if not accepted:
            return Outcome.UNSIGNED
    if require.content_digest:
        covered = not require.signature or names.CONTENT_DIGEST in evidence.covered
        if not evidence.digest or not covered:
            return Outcome.UNDIGESTED
    return Outcome.HOLDS
