"""TokenExchange documents: who may have a token for a third party, in exchange for what it was handed.  Pure.

Enters: a caller, the third party, the scope, what the caller's credential lets it ask.  Leaves: the `Exchange` that
allows it, or a `Shortfall`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pydantic import Field

from gateway.documents import API_VERSION, Duration, Metadata, Spec
from gateway.policy.brokering import FromServer
from gateway.policy.model import Caller, Capability
from gateway.policy.oauth import AuthorizationServer, Scope, Visible
from gateway.policy.patterns import CapabilityPattern

MAX_TTL_S = 3600.0
DEFAULT_TTL_S = 300.0


class TokenExchangeSpec(Spec):
    """Who, for whom, what it takes, and who gives the token."""

    from_: Annotated[tuple[Caller, ...], Field(alias="from", min_length=1)]
    audiences: Annotated[tuple[Visible, ...], Field(min_length=1)]
    """The third parties, as callers name them in ``audience`` or ``resource``."""
    capability: Capability
    """What the caller's credential must let it ask of others, all of it."""
    scope: tuple[Scope, ...] = ()
    """What may be asked for."""
    ttl_s: Annotated[Duration, Field(alias="ttl", gt=0, le=MAX_TTL_S)] = DEFAULT_TTL_S
    """A token's life; one of an authorization server's own lives as long as that says."""
    authorization_server: AuthorizationServer | None = None
    """Gives the token; without one the gateway signs it."""


class TokenExchange(Spec):
    """A policy document."""

    api_version: Literal["phoenixflight.io/v1"] = API_VERSION
    kind: Literal["TokenExchange"] = "TokenExchange"
    metadata: Metadata
    spec: TokenExchangeSpec


class Exchange(msgspec.Struct, frozen=True):
    """One document, compiled."""

    document: str
    callers: tuple[Caller, ...]
    audiences: frozenset[str]
    capability: CapabilityPattern
    scope: frozenset[str]
    ttl_s: float
    server: FromServer | None
    """Its `scope` and `audience` are the request's to say."""


class Shortfall(Enum):
    """How far a request got with the document that it came nearest to."""

    AUDIENCE = "audience"
    """Nobody lets the caller have a token for that third party."""
    CAPABILITY = "capability"
    """The credential does not let it ask for what it takes."""
    SCOPE = "scope"


class Exchanges:
    """Compiled documents; the order in which they were read makes no difference."""

    __slots__ = ("_all",)

    def __init__(self, documents: Iterable[tuple[TokenExchange, str]] = ()) -> None:
        """Compile `documents`, each with the path that it was read from."""
        by_name = sorted(documents, key=lambda each: each[0].metadata.name)
        self._all = tuple(_compiled(document, Path(source).parent) for document, source in by_name)

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def files(self) -> frozenset[Path]:
        """Every file that a client's secret stands in."""
        return frozenset(each.server.secret for each in self._all if each.server is not None)

    def find(
        self, caller: str, audience: str, scope: Collection[str], held: Iterable[CapabilityPattern]
    ) -> Exchange | Shortfall:
        """The first document, by name, that allows the exchange; else the farthest that one let it come.

        Args:
            caller: the SPIFFE id.
            audience: the third party.
            scope: what is asked for.
            held: what the caller's credential lets it ask of others.

        """
        held = tuple(held)
        nearest = Shortfall.AUDIENCE
        for each in self._all:
            if audience not in each.audiences or not any(pattern.matches(caller) for pattern in each.callers):
                continue
            if not any(pattern.includes(each.capability) for pattern in held):
                nearest = Shortfall.CAPABILITY if nearest is Shortfall.AUDIENCE else nearest
            elif not each.scope.issuperset(scope):
                nearest = Shortfall.SCOPE
            else:
                return each
        return nearest


def _compiled(document: TokenExchange, folder: Path) -> Exchange:
    spec, server = document.spec, document.spec.authorization_server
    return Exchange(
        document.metadata.name,
        spec.from_,
        frozenset(spec.audiences),
        spec.capability,
        frozenset(spec.scope),
        spec.ttl_s,
        FromServer(server.token_url, server.client_id, folder / server.client_secret_file)
        if server is not None
        else None,
    )


NO_EXCHANGES = Exchanges()
"""Nobody gets a token for anybody."""
