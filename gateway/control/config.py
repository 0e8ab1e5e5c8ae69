"""The Gateway document: every setting, its unit, its default and what it bounds."""

from __future__ import annotations

import ssl
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from gateway.admin.access import is_loopback, read_token
from gateway.approvals import ApprovalsSpec, WebhookSpec
from gateway.approvals.webhook import read_secret
from gateway.authority import AuthoritySpec
from gateway.budgets import BudgetSpec
from gateway.contexts import ContextSpec, KeyFileError, load_keys
from gateway.contexts.sigv4 import load_credentials
from gateway.contexts.spec import Kind
from gateway.control.files import read_text
from gateway.documents import (
    API_VERSION,
    Document,
    DocumentError,
    Duration,
    ErrorAt,
    Metadata,
    Name,
    Problem,
    Spec,
    refuse_duplicates,
    single,
)
from gateway.identity import PrincipalPattern, SpiffeId, parse_principal_pattern, parse_spiffe_id
from gateway.leases import LeaseSpec
from gateway.ledger import LedgerSpec
from gateway.membership.file import parse_address
from gateway.membership.health import HealthSpec
from gateway.membership.kubernetes import KubernetesSpec
from gateway.overload import OverloadSpec
from gateway.recorder import RecorderSpec
from gateway.recorder.heads import load_signer
from gateway.recorder.segments import probe
from gateway.revocations import RevocationSpec
from gateway.routing import DEFAULT_C, DEFAULT_POINTS
from gateway.telemetry.otlp import authorities
from gateway.telemetry.spec import TelemetrySpec

Address = Annotated[tuple[str, int], BeforeValidator(parse_address)]
Principals = Annotated[PrincipalPattern, BeforeValidator(lambda text: parse_principal_pattern(str(text)))]


class Identity(Spec):
    """The gateway's own SVID, shown to callers and agents, and the roots that vouch for both."""

    certificate: Path
    key: Path
    trust_bundle: Path
    crl: Annotated[tuple[Path, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)] = ()
    """Revocation lists, PEM (one or more in a file) or DER.  Where there is one, each root of the bundle needs one."""


class CertificateAuthority(Spec):
    """A CA of the gateway's own."""

    certificate: Path
    key: Path


class ClientAuth(Enum):
    """Whether a caller must show a certificate."""

    REQUIRE = "require"
    OPTIONAL = "optional"


class ListenerSpec(Spec):
    """One address on which callers are accepted."""

    name: Name
    address: Address
    tls: bool = True
    """``false`` speaks plaintext HTTP/1.1 and h2c: for loopback and development."""
    client_auth: ClientAuth = ClientAuth.REQUIRE
    assumed_principal: Annotated[SpiffeId, BeforeValidator(lambda text: parse_spiffe_id(str(text)))] | None = None
    """Who a caller without a certificate is taken for."""
    original_destination: bool = False
    """Connections are redirected here by the kernel: packets go to the agent that they were bound for, or nowhere."""

    @model_validator(mode="after")
    def _assumption_is_possible(self) -> ListenerSpec:
        if self.assumed_principal and self.tls and self.client_auth is ClientAuth.REQUIRE:
            raise ErrorAt("no caller is assumed where a certificate is required", "assumedPrincipal")
        if self.original_destination and self.tls:
            raise ErrorAt("a caller that is redirected means to speak to an agent, in plaintext", "originalDestination")
        return self


class Admin(Spec):
    """The admin port."""

    address: Address = ("127.0.0.1", 9901)
    tls: bool = False
    """``true`` shows spec.identity, and asks callers for their certificates."""
    allow: tuple[Principals, ...] = ()
    """Whose certificates let them ask everything."""
    token_file: Path | None = None
    """A file with the bearer token of those who may, too."""

    @model_validator(mode="after")
    def _others_have_to_prove_who_they_are(self) -> Admin:
        if self.allow and not self.tls:
            raise ErrorAt("callers are known by their certificates, and that takes tls: true", "allow")
        if not (is_loopback(self.address[0]) or self.allow or self.token_file):
            message = "others reach this address: it takes tls: true with allow (principals), or a tokenFile"
            raise ErrorAt(message, "address")
        return self


class Limits(Spec):
    """Bounds; each says what happens when it is reached."""

    max_connections: int = Field(default=20_000, ge=1)
    """Of callers, on each listener; beyond it new ones are closed when they are accepted."""
    max_connections_per_address: int = Field(default=10_000, ge=1)
    """The same for an IPv4 address, or an IPv6 network of 64 bits."""
    max_handshakes_per_address: int = Field(default=256, ge=1)
    """TLS handshakes under way; beyond it new connections from there are closed when they are accepted."""
    handshakes_per_second: float = Field(default=100.0, gt=0)
    """New ones from an address, 5 seconds' worth of them at once; beyond it the same."""
    handshake_timeout_s: Annotated[Duration, Field(alias="handshakeTimeout", gt=0)] = 10.0
    """From a connection's start to the end of its TLS handshake; then it is closed."""
    headers_timeout_s: Annotated[Duration, Field(alias="headersTimeout", gt=0)] = 10.0
    """From then to its first whole request head, and from any later head's start to its end; then it is closed."""
    idle_timeout_s: Annotated[Duration, Field(alias="idleTimeout", gt=0)] = 300.0
    """A caller's connection without a request; then it is closed."""
    max_connection_age_s: Annotated[Duration, Field(alias="maxConnectionAge", gt=0)] = 3600.0
    """A caller's connection, 10 % more or less by chance; then it is asked to end, and does when its open requests are
    done, however long they take."""
    connect_timeout_s: Annotated[Duration, Field(alias="connectTimeout", gt=0)] = 5.0
    """TCP and TLS to an agent; then the next agent is tried."""
    upstream_idle_timeout_s: Annotated[Duration, Field(alias="upstreamIdleTimeout", gt=0)] = 60.0
    """An unused connection to an agent; then it is closed."""
    upstream_max_connection_age_s: Annotated[Duration, Field(alias="upstreamMaxConnectionAge", gt=0)] = 3600.0
    """A connection to an agent, likewise."""
    upstream_ping_after_s: Annotated[Duration, Field(alias="upstreamPingAfter", gt=0)] = 330.0
    """An HTTP/2 agent with requests under way that says nothing for so long is asked for a sign of life.  gRPC servers
    take one in less than five minutes for abuse."""
    upstream_ping_timeout_s: Annotated[Duration, Field(alias="upstreamPingTimeout", gt=0)] = 20.0
    """How long it has to give one; then the connection is lost."""
    body_timeout_s: Annotated[Duration, Field(alias="bodyTimeout", gt=0)] = 30.0
    """Until a request's answer begins: how long nothing of its body may come; then 408.  A caller that leaves a
    megabyte of answers unread has as long, too; then its connection is reset."""
    min_body_rate: float = Field(default=32, ge=0)
    """Bytes a second that a body comes with at least, on average, once it has taken `bodyTimeout`; else 408.  Counted
    until the answer begins, and not for gRPC."""
    response_timeout_s: Annotated[Duration, Field(alias="responseTimeout", gt=0)] = 300.0
    """From the whole request to the head of the agent's answer; then 504."""
    stream_idle_timeout_s: Annotated[Duration, Field(alias="streamIdleTimeout", gt=0)] = 300.0
    """An answer under way, or a tunnel, on which nothing moves in either direction; then it is ended.  A caller that
    reads nothing of what waits for it has as long, too; then its connection is reset."""
    max_stream_duration_s: Annotated[Duration | None, Field(alias="maxStreamDuration", gt=0)] = None
    """A request with its answer, however lively; then it is ended.  Without one, a live stream lives on."""
    sse_keep_alive_s: Annotated[Duration | None, Field(alias="sseKeepAlive", gt=0)] = None
    """After so much silence a stream of events gets a comment.  Without one, it gets none."""
    max_timeout_s: Annotated[Duration, Field(alias="maxTimeout", gt=0)] = 600.0
    """Caps ``flight-timeout``."""
    max_header_bytes: int = Field(default=65536, ge=1024)
    """A request's header section; beyond it 431."""
    max_body_bytes: int | None = Field(default=None, ge=1)
    """A request's body; beyond it 413.  Without a bound, bodies of any length go through, for none is held."""
    max_headers: int = Field(default=100, ge=16)
    """Fields in a header section; beyond it 431."""
    max_concurrent_streams: int = Field(default=128, ge=1)
    """Per HTTP/2 connection of a caller; announced in SETTINGS."""
    max_connections_per_agent: int = Field(default=256, ge=1)
    """Beyond it packets wait."""
    max_pending_per_agent: int = Field(default=1024, ge=1)
    """Packets that wait for a connection; beyond it one of the caller with the most of them gets 503 overloaded."""
    max_in_flight_per_agent: int = Field(default=10_000, ge=1)
    """Packets that an agent has or that wait for it; beyond it 503 overloaded."""
    max_in_flight_per_capability: int = Field(default=100_000, ge=1)
    """The same over all agents, by what the packets ask for; beyond it 503 overloaded."""
    max_pending_per_capability: int = Field(default=10_000, ge=1)
    """Of these, those that wait for a connection; beyond it 503 overloaded."""
    drain_delay_s: Annotated[Duration, Field(alias="drainDelay", ge=0)] = 0.0
    """On SIGTERM, how long everything goes on as before but ``/readyz``: what a balancer needs to look elsewhere."""
    drain_timeout_s: Annotated[Duration, Field(alias="drainTimeout", gt=0)] = 30.0
    """After that delay, how long open exchanges may go on; then they are cut off."""


class RetrySpec(Spec):
    """When a packet that an agent failed is sent to another; see docs/retries.md."""

    attempts: int = Field(default=3, ge=1, le=10)
    """How often a packet is sent at most; 1 turns retries off."""
    budget_percent: int = Field(default=20, ge=0, le=100)
    """Of the packets under way, how many may be retries."""
    budget_floor: int = Field(default=3, ge=0)
    """So many may be, however few packets there are."""
    backoff_s: Annotated[Duration, Field(alias="backoff", gt=0)] = 0.025
    """The most that a first retry waits; the later ones twice as long each, up to ten times."""


def _redis_url(text: str) -> str:
    # What is wrong with it is told without it: there may be a password in it.
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("expected a redis://, rediss:// or unix:// URL")
    try:
        _ = urlsplit(text).port
    except ValueError:
        raise ValueError("the URL has no port where one should be; a password is to be percent-encoded") from None
    return text


class RedisSpec(Spec):
    """The Redis or Valkey that replicas share."""

    url: Annotated[str, AfterValidator(_redis_url), Field(repr=False)]


class ReloadSpec(Spec):
    """When a set that is valid is held back all the same."""

    max_flips: int | None = Field(default=None, ge=0)
    """How many of the latest packets may come out otherwise, allowed or refused; beyond it, it takes a SIGHUP."""


class RingSpec(Spec):
    """How keys are spread over agents."""

    points: int = Field(default=DEFAULT_POINTS, ge=1, le=65536)
    """Virtual nodes of an agent whose weight is 1."""
    bound: float = Field(default=DEFAULT_C, ge=1)
    """How many times its share of the packets under way an agent takes at most."""


class GatewaySpec(Spec):
    """Everything that the gateway is told."""

    identity: Identity | None = None
    listeners: Annotated[tuple[ListenerSpec, ...], Field(min_length=1)]
    admin: Admin = Admin()
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that share the listeners; more than one takes a Redis, for what they have to agree on."""
    reuse_port: bool = False
    """Let another gateway of the same user listen on the same addresses, so that it can take over (SO_REUSEPORT)."""
    policies: Path
    members: Path
    kubernetes: KubernetesSpec | None = None
    """Members from Services of a cluster, beside those of the file."""
    zone: str = ""
    """Where the gateway runs; agents there are preferred while they hold their share."""
    ring: RingSpec = RingSpec()
    leases: LeaseSpec = LeaseSpec()
    """How long conversations stay where they are."""
    ledger: LedgerSpec = LedgerSpec()
    """Which capabilities are done once."""
    budgets: BudgetSpec = BudgetSpec()
    """What becomes of budgets while Redis is away."""
    contexts: ContextSpec | None = None
    """Where agents keep the contexts of conversations; without it, nowhere."""
    health: HealthSpec = HealthSpec()
    """When agents are ejected, and what lowers their share."""
    retries: RetrySpec = RetrySpec()
    """When packets are sent once more."""
    keys: Path | None = None
    """A JWK Set: the keys of those who sign packets, beside the ones in callers' certificates."""
    authority: AuthoritySpec | None = None
    """What handoff credentials are signed with; without it none are given, and none are taken."""
    revocations: RevocationSpec = RevocationSpec()
    """Where it is read what is revoked, and kept what operators have revoked."""
    redis: RedisSpec | None = None
    """Where replicas share which signatures were accepted, where conversations are, what was done once, what budgets
    have left, what operators have revoked, and who has registered; without one, each replica knows its own."""
    trusted_hops: tuple[Principals, ...] = ()
    """Callers whose forwarding headers are believed."""
    connect_authority: CertificateAuthority | None = None
    """The CA that signs for ``*.flight.internal`` inside CONNECT tunnels; without one there are no tunnels."""
    telemetry: TelemetrySpec = TelemetrySpec()
    recorder: RecorderSpec | None = None
    """The audit trail; without one, nothing is recorded."""
    reload: ReloadSpec = ReloadSpec()
    limits: Limits = Limits()
    approvals: ApprovalsSpec = ApprovalsSpec()
    """How many packets may wait until somebody approves them, and who is told."""
    overload: OverloadSpec = OverloadSpec()
    """How much is taken on, and what happens beyond it."""

    @field_validator("listeners")
    @classmethod
    def _names_are_unique(cls, listeners: tuple[ListenerSpec, ...]) -> tuple[ListenerSpec, ...]:
        refuse_duplicates((listener.name for listener in listeners), "listeners")
        return listeners

    @model_validator(mode="after")
    def _parts_fit_together(self) -> GatewaySpec:
        for index, listener in enumerate(self.listeners):
            if listener.tls and self.identity is None:
                message = "a TLS listener needs spec.identity: certificate, key and trustBundle"
                raise ErrorAt(message, "listeners", index)
        if self.workers > 1 and self.redis is None:
            message = "workers share signatures, conversations and registrations in a Redis: it takes spec.redis"
            raise ErrorAt(message, "workers")
        if self.contexts is not None and self.contexts.store is Kind.REDIS and self.redis is None:
            raise ErrorAt("store: redis takes spec.redis", "contexts", "store")
        if self.telemetry.records is not None and self.recorder is None:
            raise ErrorAt("records are the flight recorder's: it takes spec.recorder", "telemetry", "records")
        if self.admin.tls and self.identity is None:
            raise ErrorAt("TLS needs spec.identity: certificate, key and trustBundle", "admin", "tls")
        return self


class GatewayDocument(Spec):
    """The document ``gateway.yaml``."""

    api_version: Literal["phoenixflight.io/v1"] = API_VERSION
    kind: Literal["Gateway"] = "Gateway"
    metadata: Metadata
    spec: GatewaySpec


def load_config(path: Path) -> GatewaySpec:
    """The configuration in `path`, as `read_config`, for a gateway that starts: what it begins with can be used.

    Raises:
        DocumentError: it cannot be read or is not valid.

    """
    spec, document = _read_config(path)
    for collector in (spec.telemetry.logs, spec.telemetry.tracing, spec.telemetry.records):
        if collector is not None:
            authorities(collector)  # while there is somebody to tell
    if spec.admin.token_file is not None:
        _check_token(spec.admin.token_file)
    if spec.recorder is not None:
        _check_recorder(spec.recorder, document)
    if spec.approvals.webhook is not None:
        _check_webhook(spec.approvals.webhook, document)
    if spec.contexts is not None:
        _check_contexts(spec.contexts, document)
    return spec


def read_config(path: Path) -> GatewaySpec:
    """The configuration in `path`, its paths made absolute against the file's folder.

    Raises:
        DocumentError: it cannot be read or is not valid.

    """
    return _read_config(path)[0]


def _read_config(path: Path) -> tuple[GatewaySpec, Document]:
    text = read_text(path)
    document, content = single(text, str(path), "Gateway", GatewayDocument)
    spec = content.spec
    # Symlinks stay: Kubernetes replaces the folder that a mounted file's link leads to.
    base = path.absolute().parent
    changes: dict[str, object] = {"policies": base / spec.policies, "members": base / spec.members}
    if spec.keys is not None:
        changes["keys"] = base / spec.keys
    if spec.authority is not None:
        signing = tuple(base / file for file in spec.authority.keys)
        changes["authority"] = spec.authority.model_copy(update={"keys": signing})
    revocations = spec.revocations
    changes["revocations"] = RevocationSpec(
        path=base / revocations.path if revocations.path is not None else None,
        keep=base / revocations.keep if revocations.keep is not None else None,
    )
    if spec.kubernetes is not None and spec.kubernetes.kubeconfig is not None:
        kubeconfig = base / spec.kubernetes.kubeconfig
        changes["kubernetes"] = spec.kubernetes.model_copy(update={"kubeconfig": kubeconfig})
    if spec.identity is not None:
        identity = spec.identity
        changes["identity"] = Identity(
            certificate=base / identity.certificate,
            key=base / identity.key,
            trust_bundle=base / identity.trust_bundle,
            crl=tuple(base / file for file in identity.crl),
        )
    if spec.connect_authority is not None:
        authority = spec.connect_authority
        changes["connect_authority"] = CertificateAuthority(
            certificate=base / authority.certificate, key=base / authority.key
        )
    if spec.admin.token_file is not None:
        changes["admin"] = spec.admin.model_copy(update={"token_file": base / spec.admin.token_file})
    changes["telemetry"] = spec.telemetry.under(base)
    if spec.recorder is not None:
        files: dict[str, object] = {"folder": base / spec.recorder.folder}
        if spec.recorder.key is not None:
            files["key"] = base / spec.recorder.key
        changes["recorder"] = spec.recorder.model_copy(update=files)
    webhook = spec.approvals.webhook
    if webhook is not None:
        named: dict[str, object] = {"secret_file": base / webhook.secret_file}
        if webhook.ca_file is not None:
            named["ca_file"] = base / webhook.ca_file
        changes["approvals"] = spec.approvals.model_copy(update={"webhook": webhook.model_copy(update=named)})
    if spec.contexts is not None:
        changes["contexts"] = _contexts_under(spec.contexts, base)
    return spec.model_copy(update=changes), document


def _contexts_under(spec: ContextSpec, base: Path) -> ContextSpec:
    changes: dict[str, object] = {"keys": tuple(base / path for path in spec.keys)}
    if spec.folder is not None:
        changes["folder"] = base / spec.folder
    if spec.s3 is not None:
        changes["s3"] = spec.s3.model_copy(update={"credentials": base / spec.s3.credentials})
    return spec.model_copy(update=changes)


def _check_recorder(spec: RecorderSpec, document: Document) -> None:
    try:
        probe(spec.folder)
    except OSError as error:
        message = f"spec.recorder.folder: {spec.folder} cannot be written: {error.strerror or error}"
        raise DocumentError([document.problem(("spec", "recorder", "folder"), message)]) from None
    if spec.key is not None:
        try:
            load_signer(spec.key.read_bytes())
        except (OSError, ValueError) as error:
            message = f"spec.recorder.key: {spec.key} cannot be used: {error}"
            raise DocumentError([document.problem(("spec", "recorder", "key"), message)]) from None


def _check_contexts(spec: ContextSpec, document: Document) -> None:
    at, where = "keys", "spec.contexts.keys"
    try:
        load_keys(spec.keys)
        if spec.folder is not None:
            at, where = "folder", f"spec.contexts.folder: {spec.folder} cannot be written"
            probe(spec.folder)
        if spec.s3 is not None:
            at, where = "s3", "spec.contexts.s3.credentials"
            load_credentials(spec.s3.credentials)
    except (KeyFileError, OSError, ValueError) as error:
        raise DocumentError([document.problem(("spec", "contexts", at), f"{where}: {error}")]) from None


def _check_webhook(spec: WebhookSpec, document: Document) -> None:
    where = ("spec", "approvals", "webhook")
    try:
        read_secret(spec.secret_file.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        message = f"spec.approvals.webhook.secretFile: {spec.secret_file} cannot be used: {error}"
        raise DocumentError([document.problem((*where, "secretFile"), message)]) from None
    if spec.ca_file is not None:
        try:
            ssl.create_default_context(cafile=spec.ca_file)
        except (OSError, ssl.SSLError) as error:
            message = f"spec.approvals.webhook.caFile: {spec.ca_file} cannot be used: {error}"
            raise DocumentError([document.problem((*where, "caFile"), message)]) from None


def _check_token(path: Path) -> None:
    try:
        read_token(path)
    except (OSError, ValueError) as error:
        raise DocumentError([Problem(str(path), 1, 1, f"the admin token cannot be used: {error}")]) from None
