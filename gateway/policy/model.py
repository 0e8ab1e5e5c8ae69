"""The TrustPolicy document."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from gateway.documents import API_VERSION, Metadata, Spec, refuse_duplicates
from gateway.identity import PrincipalPattern, parse_principal_pattern

_PATTERN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")


@dataclass(frozen=True, slots=True)
class CapabilityPattern:
    """A glob over capabilities: ``*`` is any run of characters, dots included."""

    text: str
    _regex: re.Pattern[str] = field(repr=False, compare=False)

    def matches(self, name: str) -> bool:
        """Whether the capability `name` is covered."""
        return self._regex.fullmatch(name) is not None


def parse_capability_pattern(text: object) -> CapabilityPattern:
    """Compile a capability glob.

    Raises:
        ValueError: it has characters that no capability has.

    """
    if not isinstance(text, str) or _PATTERN.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a capability pattern, such as code.execute or code.*")
    return CapabilityPattern(text, re.compile(".*".join(map(re.escape, re.split(r"\*+", text)))))


class Effect(Enum):
    """What a matching rule does."""

    ALLOW = "allow"
    DENY = "deny"


class To(Spec):
    """Which agents a rule means."""

    min_trust: float = Field(default=0.0, ge=0, le=1, strict=True)
    labels: dict[str, str] = {}


class Rule(Spec):
    """One rule: who, and to which agents."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[ -~]+$")
    effect: Effect
    from_: Annotated[
        tuple[Annotated[PrincipalPattern, BeforeValidator(lambda text: parse_principal_pattern(str(text)))], ...],
        Field(alias="from", min_length=1),
    ]
    to: To | None = None


class TrustPolicySpec(Spec):
    """Which packets a policy speaks about, and its rules."""

    capabilities: Annotated[
        tuple[Annotated[CapabilityPattern, BeforeValidator(parse_capability_pattern)], ...], Field(min_length=1)
    ]
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
