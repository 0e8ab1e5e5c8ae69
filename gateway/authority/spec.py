"""The handoff authority as it is configured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from gateway.documents import Duration, Spec
from gateway.policy.facts import DEFAULT_HOPS
from gateway.policy.model import MAX_GRANT_TTL_S

ISSUER: Final = "urn:phoenixflight:authority"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_MAX_ISSUER = 255


def _issuer(text: str) -> str:
    if len(text) > _MAX_ISSUER or _URI.fullmatch(text) is None:
        raise ValueError(f"expected a URI of at most {_MAX_ISSUER} characters, such as https://gateway.mesh.local")
    return text


class AuthoritySpec(Spec):
    """What handoff credentials are signed with, and their bounds; without this section none are given."""

    issuer: Annotated[str, AfterValidator(_issuer)] = ISSUER
    """``iss``: replicas that take each other's credentials have the same, and the same keys."""
    keys: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Files with private keys: PEM (P-256 or Ed25519), a JWK or a JWK Set.  The first key signs; all verify."""
    max_ttl_s: Annotated[Duration, Field(alias="maxTtl", ge=1, le=MAX_GRANT_TTL_S)] = MAX_GRANT_TTL_S
    """How long a credential lives at most, whatever policy grants."""
    max_visits: int = Field(default=1, ge=1, le=100)
    """How often a principal may stand among those whom work passes through; once more is a loop, 508."""
    max_hops: int = Field(default=DEFAULT_HOPS, ge=1, le=100)
    """How often a piece of work is handed on at most; beyond it 508."""
