"""UpstreamCredential documents: secrets that agents are given with packets, and that no caller ever holds.  Pure.

Enters: what a packet asks for, the agent that is to have it.  Leaves: `Brokered`, which says what is taken out of the
packet's header and what is put in.  Of a secret nothing is known here but where it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.documents import API_VERSION, ErrorAt, Metadata, Name, Spec
from gateway.identity import PrincipalPattern, parse_principal_pattern
from gateway.messages import Fields
from gateway.packet import Capabilities
from gateway.packet import fields as names
from gateway.policy.oauth import AuthorizationServer, Scope, Visible
from gateway.policy.patterns import CapabilityPattern, parse_capability_pattern
from gateway.routing.agent import Agent

MAX_REMEMBERED = 10_000
"""Pairs of capabilities and agent; beyond it all are forgotten and found anew."""

_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^`|~-]+")
_NOT_OURS = (
    names.MESSAGE_FRAMING
    | names.FORWARDING
    | {names.SIGNATURE, names.SIGNATURE_INPUT, names.CONTENT_DIGEST, names.CONTENT_TYPE, names.TRACEPARENT}
    | {b"upgrade", b"keep-alive", b"proxy-connection", b"expect"}
)
"""What the way of a message, or what is proven about it, depends on."""


def _header(text: str) -> str:
    name = text.lower()
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"{text[:80]!r} is not the name of a header field; '_' is taken for '-', write that")
    if name.startswith("flight-") or name.encode() in _NOT_OURS:
        raise ValueError(f"{name} is a field that the gateway, or the protocol, needs for itself")
    return name


class Scheme(Enum):
    """What stands before the secret in the field's value."""

    BEARER = "Bearer"
    NONE = "none"


class Receivers(Spec):
    """Which agents are given the secret: those that meet all that is said here."""

    names: tuple[Name, ...] = ()
    labels: dict[str, str] = {}
    spiffe_ids: tuple[
        Annotated[PrincipalPattern, BeforeValidator(lambda text: parse_principal_pattern(str(text)))], ...
    ] = ()

    @model_validator(mode="after")
    def _names_somebody(self) -> Receivers:
        if not (self.names or self.labels or self.spiffe_ids):
            raise ErrorAt("says nobody: give names, labels or spiffeIds")
        return self

    def include(self, agent: Agent) -> bool:
        """Whether `agent` is one of them."""
        if self.names and agent.name not in self.names:
            return False
        if self.labels and not self.labels.items() <= dict(agent.labels).items():
            return False
        identity = agent.spiffe_id
        return not self.spiffe_ids or (
            identity is not None and any(pattern.matches(identity) for pattern in self.spiffe_ids)
        )


class OauthClient(AuthorizationServer):
    """Tokens by the client credentials grant (RFC 6749 section 4.4)."""

    scope: tuple[Scope, ...] = ()
    audience: Visible | None = None


class UpstreamCredentialSpec(Spec):
    """For what, for whom, where it stands, and where it comes from."""

    capabilities: Annotated[
        tuple[Annotated[CapabilityPattern, BeforeValidator(parse_capability_pattern)], ...], Field(min_length=1)
    ]
    agents: Receivers
    header: Annotated[str, AfterValidator(_header)] = "authorization"
    scheme: Scheme = Scheme.BEARER
    secret_file: Path | None = None
    """Relative to the document's folder."""
    oauth: OauthClient | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> UpstreamCredentialSpec:
        if (self.secret_file is None) == (self.oauth is None):
            raise ErrorAt("takes one of secretFile and oauth")
        return self


class UpstreamCredential(Spec):
    """A credential's document."""

    api_version: Literal["phoenixflight.io/v1"] = API_VERSION
    kind: Literal["UpstreamCredential"] = "UpstreamCredential"
    metadata: Metadata
    spec: UpstreamCredentialSpec


class FromFile(msgspec.Struct, frozen=True):
    """The secret is what stands in a file."""

    file: Path


class FromServer(msgspec.Struct, frozen=True):
    """The secret is a token, which an authorization server gives the gateway."""

    token_url: str
    client_id: str
    secret: Path
    """The file with the client's own secret."""
    scope: str = ""
    audience: str = ""


class Injection(msgspec.Struct, frozen=True):
    """One field that an agent is given."""

    document: str
    """The name of the document that says so: all that is ever told of it."""
    header: bytes
    prefix: bytes
    source: FromFile | FromServer


class Brokered(msgspec.Struct, frozen=True):
    """What becomes of a packet's header on its way to one agent."""

    strip: frozenset[bytes]
    """Fields that are not the caller's to set, whoever the agent is."""
    injections: tuple[Injection, ...]
    """At most one for a field."""


def without(strip: frozenset[bytes], fields: Fields) -> Fields:
    """`fields` without those that are not the caller's to set."""
    # CGI-style servers fold "_" and "-" together.
    return [item for item in fields if item[0].replace(b"_", b"-") not in strip]


class _Compiled(msgspec.Struct, frozen=True):
    capabilities: tuple[CapabilityPattern, ...]
    agents: Receivers
    injection: Injection


class Brokering:
    """Compiled documents; of several that mean the same field of the same packet, the first by name holds."""

    __slots__ = ("_compiled", "_known", "silent")

    def __init__(self, documents: Iterable[tuple[UpstreamCredential, str]] = ()) -> None:
        """Compile `documents`, each with the path that it was read from."""
        by_name = sorted(documents, key=lambda each: each[0].metadata.name)
        self._compiled = tuple(_compiled(document, Path(source).parent) for document, source in by_name)
        self._known: dict[tuple[tuple[str, ...], str], tuple[Agent, Brokered | None]] = {}
        self.silent = not self._compiled
        """There are no documents."""

    @property
    def documents(self) -> tuple[str, ...]:
        """Their names, sorted."""
        return tuple(each.injection.document for each in self._compiled)

    @property
    def files(self) -> frozenset[Path]:
        """Every file that a secret stands in."""
        sources = (each.injection.source for each in self._compiled)
        return frozenset(source.file if isinstance(source, FromFile) else source.secret for source in sources)

    def of(self, capabilities: Capabilities, agent: Agent) -> Brokered | None:
        """What becomes of packets for `capabilities` at `agent`; ``None`` where no document speaks of them."""
        key = (capabilities.names, agent.name)
        known = self._known.get(key)
        if known is not None and known[0] is agent:
            return known[1]
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        found = self._find(capabilities, agent)
        self._known[key] = agent, found
        return found

    def strip(self, capabilities: Capabilities) -> frozenset[bytes]:
        """The fields that callers do not set in packets for `capabilities`, whoever gets them."""
        return frozenset(each.injection.header for each in self._speaking_of(capabilities))

    def _speaking_of(self, capabilities: Capabilities) -> list[_Compiled]:
        return [
            each
            for each in self._compiled
            if any(pattern.matches(name) for pattern in each.capabilities for name in capabilities.names)
        ]

    def _find(self, capabilities: Capabilities, agent: Agent) -> Brokered | None:
        injections: dict[bytes, Injection] = {}
        for each in self._speaking_of(capabilities):
            if each.agents.include(agent):
                injections.setdefault(each.injection.header, each.injection)
        strip = self.strip(capabilities)
        return Brokered(strip, tuple(injections.values())) if strip else None


def _compiled(document: UpstreamCredential, folder: Path) -> _Compiled:
    spec, oauth = document.spec, document.spec.oauth
    source: FromFile | FromServer
    if oauth is not None:
        secret = folder / oauth.client_secret_file
        source = FromServer(oauth.token_url, oauth.client_id, secret, " ".join(oauth.scope), oauth.audience or "")
    else:
        assert spec.secret_file is not None
        source = FromFile(folder / spec.secret_file)
    prefix = b"Bearer " if spec.scheme is Scheme.BEARER else b""
    return _Compiled(
        spec.capabilities, spec.agents, Injection(document.metadata.name, spec.header.encode("ascii"), prefix, source)
    )


NO_BROKERING = Brokering()
"""No secret is anybody's."""
