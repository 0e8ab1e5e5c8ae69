"""MembershipPolicy: who may register which agents.

The document as it is written, and the set of them compiled.  A registration needs one rule that allows all of it:
silence is a refusal, so that without a MembershipPolicy nobody registers anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from gateway.documents import API_VERSION, Duration, Metadata, Spec, refuse_duplicates
from gateway.identity import Principal
from gateway.policy.model import Caller, Capability
from gateway.policy.patterns import GlobIndex
from gateway.refusal import Reason, Refusal

DEFAULT_MAX_LEASE_S = 300.0
MIN_LEASE_S = 1.0
"""Nobody renews more often than three times in as long."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME_PATTERN = re.compile(r"[a-z0-9*][a-z0-9.*-]{0,252}")
_HOST_PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._*-]{0,252}")


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A glob over names or hosts: ``*`` is any run of characters, dots included."""

    text: str

    def matches(self, name: str) -> bool:
        """Whether `name` is covered."""
        return _regex(self.text).fullmatch(name) is not None


@lru_cache(maxsize=4_096)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", pattern))))


def _name_pattern(text: object) -> NamePattern:
    if not isinstance(text, str) or _NAME_PATTERN.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a pattern of agents' names, such as coder-*")
    return NamePattern(text)


def _address_pattern(text: object) -> Network | NamePattern:
    """A CIDR, an address, or a glob over host names."""
    if isinstance(text, str):
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            # What has no letter can only be meant as an address: 10.*, 10.0.0.1/8.
            if _HOST_PATTERN.fullmatch(text) and (text == "*" or re.search("[A-Za-z]", text)):
                return NamePattern(text.lower())
    raise ValueError(f"{text!r} is neither a CIDR, such as 10.0.0.0/8, nor a pattern of hosts, such as *.agents.local")


class RegistrationRule(Spec):
    """One rule: who may register what."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[ -~]+$")
    from_: Annotated[tuple[Caller, ...], Field(alias="from", min_length=1)]
    names: Annotated[tuple[Annotated[NamePattern, BeforeValidator(_name_pattern)], ...], Field(min_length=1)]
    capabilities: Annotated[tuple[Capability, ...], Field(min_length=1)]
    addresses: (
        Annotated[tuple[Annotated[Network | NamePattern, BeforeValidator(_address_pattern)], ...], Field(min_length=1)]
        | None
    ) = None
    """Where the agents may be; left out, only at the address that the registration comes from."""
    max_trust: float = Field(ge=0, le=1, strict=True)
    """The most that an agent may ask for, and what it gets when it does not ask."""
    labels: dict[str, str] = {}
    """The labels that an agent may have, each with this value only."""
    max_lease_s: Annotated[Duration, Field(alias="maxLease", ge=MIN_LEASE_S)] = DEFAULT_MAX_LEASE_S
    """Longer leases are cut to this."""


class MembershipPolicySpec(Spec):
    """The rules of a policy."""

    rules: Annotated[tuple[RegistrationRule, ...], Field(min_length=1)]

    @field_validator("rules")
    @classmethod
    def _names_are_unique(cls, rules: tuple[RegistrationRule, ...]) -> tuple[RegistrationRule, ...]:
        refuse_duplicates((rule.name for rule in rules), "rules")
        return rules


class MembershipPolicy(Spec):
    """A policy document."""

    api_version: Literal["phoenixflight.io/v1"] = API_VERSION
    kind: Literal["MembershipPolicy"] = "MembershipPolicy"
    metadata: Metadata
    spec: MembershipPolicySpec


@dataclass(frozen=True, slots=True)
class Application:
    """What somebody asks to have registered."""

    name: str
    host: str
    """Where the agent is: an IP address or a host name."""
    peer: str
    """The IP address that the registration comes from; empty when that cannot be told."""
    capabilities: frozenset[str]
    trust: float | None = None
    """``None`` leaves it to the rule."""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Admitting:
    """A rule of a policy, which allows a registration or falls short of that."""

    policy: str
    spec: RegistrationRule

    @property
    def name(self) -> str:
        """The rule, as ``policy/rule``."""
        return f"{self.policy}/{self.spec.name}"

    def shortfall(self, asked: Application) -> tuple[int, str]:
        """How far `asked` gets with this rule, and why no farther; the reason is empty when it is allowed."""
        rule = self.spec
        if not any(pattern.matches(asked.name) for pattern in rule.names):
            return 1, f"no rule lets you register the name {asked.name}"
        for capability in sorted(asked.capabilities):
            if not any(pattern.matches(capability) for pattern in rule.capabilities):
                return 2, f"rule {self.name} does not allow the capability {capability}"
        if not self._covers(asked.host, asked.peer):
            where = "only the address that you connect from" if rule.addresses is None else "other addresses"
            return 3, f"rule {self.name} does not allow the address {asked.host}, but {where}"
        for label, value in asked.labels:
            if rule.labels.get(label) != value:
                return 4, f"rule {self.name} does not allow the label {label}={value}"
        if asked.trust is not None and asked.trust > rule.max_trust:
            return 5, f"rule {self.name} allows no trust above {rule.max_trust:g}"
        return 6, ""

    def _covers(self, host: str, peer: str) -> bool:
        address = _address(host)
        if self.spec.addresses is None:
            return address is not None and address == _address(peer)
        for allowed in self.spec.addresses:
            if isinstance(allowed, NamePattern):
                if address is None and allowed.matches(host.lower()):
                    return True
            elif address is not None and address in allowed:
                return True
        return False


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A listener on both families sees its IPv4 callers so.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class MembershipPolicySet:
    """Compiled policies; the order in which they were read makes no difference."""

    __slots__ = ("_callers", "policies", "rules")

    def __init__(self, policies: Iterable[MembershipPolicy] = ()) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: policy.metadata.name))
        self.rules = tuple(
            Admitting(policy.metadata.name, rule) for policy in self.policies for rule in policy.spec.rules
        )
        self._callers = GlobIndex((glob, number) for number, rule in enumerate(self.rules) for glob in rule.spec.from_)

    def admits(self, principal: Principal, asked: Application) -> Admitting | Refusal:
        """The first rule, by policies' names and then in their order, that allows what `principal` asks for.

        The refusal tells of the rule that it came nearest to, and of none that is not about the caller.
        """
        farthest, told, nearest = 0, "no rule lets you register agents", None
        mask = self._callers.matching(principal.id)
        while mask:
            lowest = mask & -mask
            mask ^= lowest
            rule = self.rules[lowest.bit_length() - 1]
            reached, why = rule.shortfall(asked)
            if not why:
                return rule
            if reached > farthest:
                farthest, told, nearest = reached, why, rule if reached > 1 else None
        policy, name = (nearest.policy, nearest.spec.name) if nearest is not None else ("", "")
        return Refusal(Reason.REGISTRATION_DENIED, told, policy, name)


NO_MEMBERSHIP_POLICIES = MembershipPolicySet()
"""Nobody may register anything."""
