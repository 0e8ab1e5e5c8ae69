"""``/policies``: what is in force, where it stands, and how often each rule had the last word."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.hits import Hits
from gateway.admin.stream import json
from gateway.policy.model import TrustPolicy

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway


class RuleHits(msgspec.Struct, frozen=True):
    """One rule, since the gateway started."""

    name: str
    effect: str
    hits: int
    """Handoffs that it decided; of a packet that asks for several capabilities, the rule of the first counts."""
    shadow_hits: int
    """Packets that it spoke about in shadow, and that would have come out otherwise with the shadow policies in
    force."""
    last_hit: datetime | None


class PolicyHits(msgspec.Struct, frozen=True):
    """One policy."""

    name: str
    mode: str
    file: str
    capabilities: list[str]
    rules: list[RuleHits]


class Policies(msgspec.Struct, frozen=True):
    """The answer of ``/policies``."""

    policies: list[PolicyHits]
    default_refusals: int
    """Handoffs refused because no rule spoke for them."""


def counted(policies: tuple[TrustPolicy, ...], files: Mapping[str, str], hits: Hits) -> Policies:
    """`policies` with their `hits`; `files` are theirs by name."""
    return Policies(
        [
            PolicyHits(
                policy.metadata.name,
                policy.spec.mode.value,
                files.get(policy.metadata.name, ""),
                [pattern.text for pattern in policy.spec.capabilities],
                [
                    RuleHits(rule.name, rule.effect.value, *hits.of(policy.metadata.name, rule.name))
                    for rule in policy.spec.rules
                ],
            )
            for policy in policies
        ],
        hits.default_refusals,
    )


def policy_routes(gateway: Gateway) -> list[Route]:
    """The endpoint of `gateway`."""

    async def policies(_: Request) -> Response:
        if gateway.plane is not None:
            gateway.plane.records.settle()
        return json(counted(gateway.snapshot.policies.policies, gateway.policy_files, gateway.live.hits))

    return [Route("/policies", policies)]
