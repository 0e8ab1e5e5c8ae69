"""The TrustPolicy document, as it is written."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator, field_validator, model_validator

from gateway.documents import API_VERSION, Duration, ErrorAt, Metadata, Spec, refuse_duplicates
from gateway.identity import PrincipalPattern, parse_principal_pattern
from gateway.policy.cel import Expression
from gateway.policy.facts import agent_condition, packet_condition
from gateway.policy.patterns import CapabilityPattern, parse_capability_pattern
from gateway.policy.rate import Rate, parse_rate

MAX_GRANT_TTL_S = 300.0
MAX_AMOUNT = 999_999_999_999_999
"""Of a budget: the largest Integer of RFC 9651 section 3.3.1."""
MAX_APPROVAL_TIMEOUT_S = 3600.0
TOKEN, WEBHOOK = "token", "webhook"
"""Approvers that have no SPIFFE id: whoever shows the admin token, and what the approval webhook asks."""

Caller = Annotated[PrincipalPattern, BeforeValidator(lambda text: parse_principal_pattern(str(text)))]
Capability = Annotated[CapabilityPattern, BeforeValidator(parse_capability_pattern)]
Unit = Annotated[str, Field(pattern=r"^[a-z*][a-z0-9_.*-]*$", max_length=64)]
"""Of a budget: a key of a Dictionary (RFC 9651 section 3.1.2)."""
When = Annotated[Expression, BeforeValidator(lambda text: packet_condition(_expression(text)))]
AgentWhen = Annotated[Expression, BeforeValidator(lambda text: agent_condition(_expression(text)))]


def _approver(value: object) -> PrincipalPattern | str:
    text = str(value)
    return text if text in (TOKEN, WEBHOOK) else parse_principal_pattern(text)


Approver = Annotated[PrincipalPattern | str, PlainValidator(_approver)]


def _expression(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected an expression, as text in quotes")
    return value


class Mode(Enum):
    """Whether a policy is in force."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    """It is evaluated, and what it would change is recorded; it changes nothing."""


class Effect(Enum):
    """What a matching rule does."""

    ALLOW = "allow"
    ASK = "ask"
    """It allows once somebody has approved the packet."""
    DENY = "deny"


class To(Spec):
    """Which agents a rule means."""

    min_trust: float = Field(default=0.0, ge=0, le=1, strict=True)
    labels: dict[str, str] = {}


class Require(Spec):
    """What must be proven about a packet before a rule allows it."""

    signature: bool = Field(default=False, strict=True)
    """A verified signature, by the caller itself unless `signers` says otherwise."""
    signers: Annotated[tuple[Caller, ...], Field(min_length=1)] | None = None
    """Whose signature counts: so one principal may carry another's packet."""
    content_digest: bool = Field(default=False, strict=True)
    """A ``content-digest``, covered by the signature where one is required."""
    context: bool = Field(default=False, strict=True)
    """A ``flight-context`` with a digest; the gateway's store must have what it refers to, for this caller."""

    credential: bool = Field(default=False, strict=True)
    """A handoff credential: only work that was handed on under a grant is let through."""

    @model_validator(mode="after")
    def _means_something(self) -> Require:
        if self.signers is not None and not self.signature:
            raise ErrorAt("signers are for a required signature: add signature: true", "signers")
        if not (self.signature or self.content_digest or self.context or self.credential):
            wanted = "signature, contentDigest, context or credential"
            raise ErrorAt(f"requires nothing: set {wanted} to true, or leave it out")
        return self


class Grant(Spec):
    """What the receiver may do with the work: the bounds of the handoff credential that it is given."""

    capabilities: tuple[Capability, ...] = ()
    """What it may ask of others."""
    budget: dict[Unit, Annotated[int, Field(ge=0, le=MAX_AMOUNT, strict=True)]] = {}
    """What may be spent, by unit."""
    ttl_s: Annotated[Duration, Field(alias="ttl", gt=0, le=MAX_GRANT_TTL_S)] = MAX_GRANT_TTL_S


class ContextDelivery(Enum):
    """How an agent gets the context of a packet."""

    INLINE = "inline"
    """With the packet, in a header field."""


class Deliver(Spec):
    """What the receiver gets with a packet that it would have to fetch otherwise."""

    context: ContextDelivery


class Approval(Spec):
    """Who approves what a rule asks about, and how long the packet waits for them."""

    timeout_s: Annotated[Duration, Field(alias="timeout", gt=0, le=MAX_APPROVAL_TIMEOUT_S)] = 60.0
    approvers: Annotated[tuple[Approver, ...], Field(min_length=1)] | None = None
    """Operators by their SPIFFE ids, ``token`` and ``webhook``; everybody who is one of these unless it is set."""
    reason: str = Field(default="", max_length=500)
    """What the approver is told."""


class Per(Enum):
    """Whose packets a limit counts together."""

    PRINCIPAL = "principal"
    CAPABILITY = "capability"
    CONVERSATION = "conversation"


class Limits(Spec):
    """How often a rule allows."""

    rate: Annotated[Rate, BeforeValidator(parse_rate)]
    per: Per = Per.PRINCIPAL


class Audit(Enum):
    """Whether a packet may go on though it cannot be recorded."""

    REQUIRED = "required"
    """It may not: while the flight recorder cannot write, it is refused, 503 not-recorded."""


class Rule(Spec):
    """One rule: who, on which condition, and to which agents."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[ -~]+$")
    effect: Effect
    from_: Annotated[tuple[Caller, ...], Field(alias="from", min_length=1)]
    to: To | None = None
    when: When | None = None
    """On the packet; without one the rule holds for each."""
    agent_when: AgentWhen | None = None
    """On the agent; narrows as `to` does."""
    require: Require | None = None
    grant: Grant | None = None
    deliver: Deliver | None = None
    limits: Limits | None = None
    approval: Approval | None = None
    """Of an ask."""
    audit: Audit | None = None
    """Without one, what the gateway does for all packets holds: its ``recorder.onFailure``."""

    @model_validator(mode="after")
    def _a_deny_only_denies(self) -> Rule:
        if self.effect is Effect.DENY:
            for field in ("require", "grant", "deliver", "limits", "audit"):
                if getattr(self, field) is not None:
                    raise ErrorAt("goes with effect: allow or ask; a deny takes no terms", field)
        if self.approval is not None and self.effect is not Effect.ASK:
            raise ErrorAt("goes with effect: ask", "approval")
        return self


class TrustPolicySpec(Spec):
    """Which packets a policy speaks about, and its rules."""

    mode: Mode = Mode.ENFORCE
    capabilities: Annotated[tuple[Capability, ...], Field(min_length=1)]
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]

    @field_validator("rules")
    @classmethod
    def _names_are_unique(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        refuse_duplicates((rule.name for rule in rules), "rules")
        return rules


class TrustPolicy(Spec):
    """A policy document."""

    api_version: Literal["phoenixflight.io/v1"] = API_VERSION
    kind: Literal["TrustPolicy"] = "TrustPolicy"
    metadata: Metadata
    spec: TrustPolicySpec
