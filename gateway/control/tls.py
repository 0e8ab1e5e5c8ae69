"""TLS contexts from the gateway's files; a set that does not load leaves the last good one in use."""

from __future__ import annotations

import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from gateway.control.certs_dev import Authority
from gateway.control.config import CertificateAuthority, ClientAuth, Identity
from gateway.control.files import read_settled
from gateway.control.revocations import Revocations
from gateway.documents import DocumentError
from gateway.routing import Agent, Protocol

MAX_TUNNEL_CONTEXTS = 256
TUNNEL_CERTIFICATE_DAYS = 1.0
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""What is spoken in TLS 1.2; keys of less than 112 bits of security (RSA below 2048) are none."""


class TlsError(Exception):
    """Certificate files that cannot be used; the message names them."""


def tls_files(identity: Identity | None, authority: CertificateAuthority | None) -> tuple[Path, ...]:
    """The certificates and keys that are configured."""
    own: tuple[Path, ...] = ()
    if identity is not None:
        own = (identity.certificate, identity.key, identity.trust_bundle, *identity.crl)
    return own + ((authority.certificate, authority.key) if authority is not None else ())


class TlsContexts:
    """Every context that the gateway uses, made from one reading of the files.

    Connections keep the context that they began with; new ones get the newest.
    """

    def __init__(self, identity: Identity | None, authority: CertificateAuthority | None) -> None:
        """Read the files.

        Raises:
            TlsError: a file is missing, a certificate and its key do not match, or no CA vouches for anybody any more.

        """
        self._identity = identity
        self._authority: Authority | None = None
        self._tunnels: OrderedDict[str, ssl.SSLContext] = OrderedDict()
        self._servers: dict[ClientAuth, ssl.SSLContext] = {}
        self._clients: dict[Protocol, ssl.SSLContext] = {}
        self._revocations: Revocations | None = None
        self.not_before: datetime | None = None
        """When the gateway's own certificate begins."""
        self.not_after: datetime | None = None
        """When it ends."""
        now = datetime.now(UTC)
        if authority is not None:
            try:
                self._authority = Authority.load(authority.certificate, authority.key)
                _check_in_force([self._authority.certificate], now)
            except (OSError, ValueError) as error:
                raise TlsError(f"connectAuthority: {error}") from None
        if identity is None:
            return
        try:
            certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
            self.not_before = certificate.not_valid_before_utc
            self.not_after = certificate.not_valid_after_utc
            roots = x509.load_pem_x509_certificates(identity.trust_bundle.read_bytes())
            _check_in_force(roots, now)
            if identity.crl:
                self._revocations = Revocations.load(identity.crl, roots, now)
            for auth in ClientAuth:
                self._servers[auth] = self._server(identity, auth)
            for protocol in (Protocol.HTTP1, Protocol.H2):
                self._clients[protocol] = self._client(identity, protocol)
        except (OSError, ValueError) as error:
            names = ", ".join(map(str, tls_files(identity, None)))
            raise TlsError(f"identity ({names}): {error}") from None

    @classmethod
    def load(cls, identity: Identity | None, authority: CertificateAuthority | None) -> TlsContexts:
        """As the constructor, from files that are all of one moment.

        Raises:
            TlsError: as the constructor, or they keep changing.

        """
        files = tls_files(identity, authority)
        try:
            return read_settled(files, lambda: cls(identity, authority))
        except DocumentError as error:
            raise TlsError(str(error)) from None

    def _server(self, identity: Identity, auth: ClientAuth) -> ssl.SSLContext:
        context = _server_context()
        context.load_cert_chain(identity.certificate, identity.key)
        self._trust(context, identity)
        context.verify_mode = ssl.CERT_REQUIRED if auth is ClientAuth.REQUIRE else ssl.CERT_OPTIONAL
        return context

    def _client(self, identity: Identity, protocol: Protocol) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _only_modern(context)
        context.check_hostname = False  # an SVID names a workload, not a host; the SPIFFE id is checked instead
        context.load_cert_chain(identity.certificate, identity.key)
        self._trust(context, identity)
        context.set_alpn_protocols(["h2"] if protocol is Protocol.H2 else ["http/1.1"])
        return context

    def _trust(self, context: ssl.SSLContext, identity: Identity) -> None:
        context.load_verify_locations(identity.trust_bundle)
        if self._revocations is None:
            return
        with _file(self._revocations.pem) as name:
            context.load_verify_locations(name)
        # The whole chain: a list that names an intermediate CA is to end what that one vouches for.
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN

    @property
    def revoked(self) -> frozenset[bytes] | None:
        """The marks of certificates that are revoked; ``None`` where no lists are configured."""
        return self._revocations.revoked if self._revocations is not None else None

    def warnings(self, now: datetime) -> tuple[str, ...]:
        """What is wrong with the revocation lists in use at `now`."""
        return self._revocations.warnings(now) if self._revocations is not None else ()

    def lives(self) -> dict[tuple[str, str], tuple[float, float]]:
        """When the gateway's own certificate begins and ends, and each list that ends.

        Seconds since the epoch, by kind and name.
        """
        lives = {}
        if self.not_before is not None and self.not_after is not None:
            lives["own", "identity"] = self.not_before.timestamp(), self.not_after.timestamp()
        for each in self._revocations.lists if self._revocations is not None else ():
            if each.ends is not None:
                lives["crl", each.issuer] = each.begins.timestamp(), each.ends.timestamp()
        return lives

    def status(self, now: datetime) -> dict[str, object]:
        """JSON values for ``/status``."""
        lists = self._revocations.lists if self._revocations is not None else ()
        return {
            "not_after": self.not_after.isoformat() if self.not_after is not None else None,
            "revocation_lists": [each.status(now) for each in lists],
            "warnings": self.warnings(now),
        }

    def server(self, auth: ClientAuth) -> ssl.SSLContext:
        """For the next caller."""
        return self._servers[auth]

    def client(self, agent: Agent) -> ssl.SSLContext:
        """For the next connection to `agent`."""
        if not self._clients:
            raise ssl.SSLError("spec.identity is not configured, so no agent can be reached over TLS")
        return self._clients[agent.protocol]

    def new_client(self, agent: Agent) -> ssl.SSLContext:
        """As `client`, for somebody who changes it."""
        if self._identity is None:
            raise ssl.SSLError("spec.identity is not configured, so no agent can be reached over TLS")
        return self._client(self._identity, agent.protocol)

    def tunnel(self, host: str) -> ssl.SSLContext | None:
        """For the TLS inside a CONNECT tunnel to `host`, whose certificate is made on first use."""
        if self._authority is None:
            return None
        context = self._tunnels.get(host)
        if context is None:
            context = self._tunnel(host, self._authority)
            self._tunnels[host] = context
            if len(self._tunnels) > MAX_TUNNEL_CONTEXTS:
                self._tunnels.popitem(last=False)
        return context

    def _tunnel(self, host: str, authority: Authority) -> ssl.SSLContext:
        context = _server_context()
        pair = authority.issue(datetime.now(UTC), dns=[host], days=TUNNEL_CERTIFICATE_DAYS)
        with _file(b"".join(pair)) as name:
            context.load_cert_chain(name)
        if self._identity is not None:
            self._trust(context, self._identity)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


def _check_in_force(authorities: list[x509.Certificate], now: datetime) -> None:
    """See that one of these still vouches for somebody: a bundle keeps those that have ended for a while.

    Raises:
        ValueError: all have ended; the message says when.

    """
    end = max(each.not_valid_after_utc for each in authorities)
    if end <= now:
        raise ValueError(f"the CA has expired at {end:%Y-%m-%d %H:%M:%S} UTC")


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """A file for as long as OpenSSL reads it, 0600: the ssl module takes keys and lists from files only."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def _only_modern(context: ssl.SSLContext) -> None:
    # RFC 9325 section 4.2: forward secrecy and AEAD, nothing else.  TLS 1.3 has nothing else; its suites are OpenSSL's.
    # The groups are OpenSSL's, too: until Python 3.15 the ssl module lets one be chosen, not several.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _only_modern(context)
    # No tickets: a resumed session would be vouched for by the bundle of the day it was first made.  Session ids of
    # TLS 1.2 cannot be turned off here; they are good for this context only, which goes when any of its files changes.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context
