"""One rule, compiled: whether it holds for a packet, and for an agent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.identity import Principal, PrincipalPattern
from gateway.packet import FlightPacket
from gateway.packet import fields as names
from gateway.policy.facts import ON_AGENTS, AgentFacts, Evidence
from gateway.policy.model import (
    TOKEN,
    WEBHOOK,
    Approval,
    ContextDelivery,
    Effect,
    Grant,
    Mode,
    Per,
    Require,
    Rule,
    TrustPolicy,
)
from gateway.policy.patterns import CapabilityPattern
from gateway.policy.rate import Rate
from gateway.routing.agent import Agent

if TYPE_CHECKING:
    from gateway.authority.credential import Credential


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
    UNCREDENTIALED = 6
    """There is no handoff credential."""
    CONTEXTLESS = 7
    """It refers to no context."""


class ContextTerms(msgspec.Struct, frozen=True):
    """What a rule says of a packet's context."""

    required: bool
    """The gateway must have it, for the caller."""
    inline: bool
    """The agent is given it with the packet."""


class Limit(msgspec.Struct, frozen=True):
    """How often a rule allows; the counting is done elsewhere."""

    policy: str
    rule: str
    rate: Rate
    per: Per


class Ask(msgspec.Struct, frozen=True):
    """That somebody is to approve a packet first; who is asked, and waiting, is done elsewhere."""

    policy: str
    rule: str
    timeout_s: float
    reason: str = ""
    """What the approver is told."""
    approvers: tuple[PrincipalPattern | str, ...] = ()
    """As `Approval.approvers` has them; none are all."""

    @property
    def name(self) -> str:
        """The rule's."""
        return f"{self.policy}/{self.rule}"

    def takes(self, operator: str) -> bool:
        """Whether the operator of that name may answer: a SPIFFE id, ``webhook``, or who has shown the token."""
        if not self.approvers:
            return True
        known = operator if operator.startswith("spiffe://") or operator == WEBHOOK else TOKEN
        return any(each == known if isinstance(each, str) else each.matches(known) for each in self.approvers)


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
    ask: Ask | None
    """That it allows only what somebody has approved."""

    @property
    def carries(self) -> bool:
        """Whether it may let one principal bring what another has signed."""
        return self.spec.require is not None and self.spec.require.signers is not None

    @property
    def grant(self) -> Grant | None:
        """The terms for handing the work on."""
        return self.spec.grant

    @property
    def context(self) -> ContextTerms | None:
        """The terms of a packet's context; ``None`` when the rule has none."""
        require, deliver = self.spec.require, self.spec.deliver
        required = require is not None and require.context
        inline = deliver is not None and deliver.context is ContextDelivery.INLINE
        return ContextTerms(required, inline) if required or inline else None

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
        """Whether the rule, which allows or asks, certainly means `agent`: an ``agentWhen`` that fails does not."""
        if agent.trust < self.min_trust or not self.labels.issubset(agent.labels):
            return False
        return self.spec.agent_when is None or self.agent_condition(agent, principal) is True

    def means(self, agent: Agent, principal: Principal) -> bool:
        """Whether the rule may mean `agent`, as an ``agentWhen`` that fails does: so it denies."""
        if agent.trust < self.min_trust or not self.labels.issubset(agent.labels):
            return False
        return self.spec.agent_when is None or self.agent_condition(agent, principal) is not False

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


def _ask(policy: str, rule: Rule) -> Ask | None:
    if rule.effect is not Effect.ASK:
        return None
    approval = rule.approval or Approval()
    return Ask(policy, rule.name, approval.timeout_s, approval.reason, approval.approvers or ())


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
        ask=_ask(name, rule),
    )


def requirement(
    require: Require, principal: Principal, evidence: Evidence, packet: FlightPacket, held: Credential | None = None
) -> Outcome:
    """Whether what a rule requires of `packet`, sent by `principal`, is there, and proven by `evidence` and `held`."""
    if require.credential and held is None:
        return Outcome.UNCREDENTIALED
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
    if require.context and not packet.context:
        return Outcome.CONTEXTLESS
    return Outcome.HOLDS
