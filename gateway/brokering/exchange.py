"""``POST /oauth2/token``: tokens for third parties, in exchange for what an agent was handed (RFC 8693)."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from gateway.authority import Credential
from gateway.brokering.request import (
    ACCESS_TOKEN,
    GRANT_TYPE,
    JWT,
    Answer,
    Asked,
    Code,
    Failure,
    Issued,
    granted,
    read,
    refused,
)
from gateway.brokering.secrets import Secrets
from gateway.brokering.servers import AuthorizationServers
from gateway.brokering.tokens import NEGATIVE_S, Clock, Fetch, NoToken, Token, TokenCache
from gateway.identity import Principal
from gateway.messages import RequestHead
from gateway.policy.exchange import Exchange, Exchanges, Shortfall
from gateway.refusal import Reason, Refusal, answer

ASSERTION_LIFE_S: Final = 60.0
"""Of what the gateway shows an authorization server."""

log = logging.getLogger(__name__)

_NOT_FOR = {
    Shortfall.AUDIENCE: Failure(Code.INVALID_TARGET, "no TokenExchange lets you have a token for this third party"),
    Shortfall.CAPABILITY: Failure(
        Code.INVALID_REQUEST, "the credential does not let you ask for what a token for this third party takes"
    ),
    Shortfall.SCOPE: Failure(Code.INVALID_SCOPE, "no TokenExchange lets you have this scope there"),
}
_UNPROVEN = Failure(
    Code.INVALID_CLIENT, "show a client certificate: the credential is bound to the one of whoever was handed it"
)
_NO_SECRET = Failure(
    Code.TEMPORARILY_UNAVAILABLE, "the gateway cannot ask the authorization server", math.ceil(NEGATIVE_S)
)
_NO_ANSWER = Failure(
    Code.TEMPORARILY_UNAVAILABLE, "the authorization server does not answer; try again later", math.ceil(NEGATIVE_S)
)
_THEY_SAY = {
    "invalid_scope": Failure(Code.INVALID_SCOPE, "the authorization server gives no token of this scope"),
    "invalid_client": _NO_SECRET,
    "unauthorized_client": _NO_SECRET,
}
_THEY_REFUSE = Failure(Code.INVALID_TARGET, "the authorization server gives no token for this third party")


class Verify(Protocol):
    """Whether a handoff credential holds."""

    def __call__(self, raw: bytes, principal: Principal, now: float) -> Credential | Refusal:
        """The credential in `raw`, shown by `principal` at `now` (seconds since the epoch), or why it is none."""


class TokenExchanges:
    """Answers agents that need a token for somebody outside."""

    prefix: Final = "/oauth2/token"

    def __init__(
        self,
        servers: AuthorizationServers,
        *,
        exchanges: Callable[[], Exchanges],
        secrets: Callable[[], Secrets],
        verify: Verify,
        sign: Callable[[Mapping[str, object]], str],
        wall: Clock,
        clock: Clock,
        mint_id: Callable[[], str],
    ) -> None:
        """Answer by what is in force.

        Args:
            servers: asks authorization servers.
            exchanges: gives the documents in force.
            secrets: gives what the gateway shows those servers, by file.
            verify: whether a credential holds.
            sign: makes a JWT of claims and ``iss``, by the gateway's own key.
            wall: seconds since the epoch.
            clock: seconds that tokens' lives are counted by.
            mint_id: gives a ``jti``.

        """
        self.outcomes: Counter[str] = Counter()
        """How many requests had which outcome: ``issued``, or an ``error``."""
        self._servers = servers
        self._exchanges = exchanges
        self._secrets = secrets
        self._verify = verify
        self._sign = sign
        self._wall = wall
        self._clock = clock
        self._mint_id = mint_id
        self._tokens = TokenCache(clock)

    async def handle(self, head: RequestHead, principal: Principal, body: bytes, peer: str) -> Answer | Refusal:
        """Answer one request of `principal`, with the form in `body`."""
        if head.method != b"POST":
            return _not_allowed()
        asked = read(body) if principal.certificate else _UNPROVEN
        found = asked if isinstance(asked, Failure) else await self._exchange(principal, asked)
        outcome = found.code.text if isinstance(found, Failure) else "issued"
        self.outcomes[outcome] += 1
        audience = "" if isinstance(asked, Failure) else asked.audience
        log.info("token exchange: %s for %.253r: %s", principal.id, audience, outcome)
        return refused(found) if isinstance(found, Failure) else granted(found)

    async def _exchange(self, principal: Principal, asked: Asked) -> Issued | Failure:
        now = self._wall()
        credential = self._verify(asked.credential.encode(), principal, now)
        if isinstance(credential, Refusal):
            return Failure(Code.INVALID_REQUEST, f"subject_token: {credential.detail}")
        allowed = self._exchanges().find(principal.id, asked.audience, asked.scope, credential.capabilities)
        if isinstance(allowed, Shortfall):
            return _NOT_FOR[allowed]
        if allowed.server is not None:
            return await self._have(allowed, principal, credential, asked)
        # Nothing outlives the work that it was handed for.
        life_s = int(min(allowed.ttl_s, credential.expires - now))
        if life_s <= 0:
            return Failure(Code.INVALID_REQUEST, "subject_token: it ends now")
        scope = " ".join(asked.scope)
        token = self._signed(principal, credential, asked.audience, life_s, scope)
        return Issued(token, asked.kind, life_s, scope)

    def _signed(self, principal: Principal, credential: Credential, audience: str, life_s: float, scope: str) -> str:
        now = int(self._wall())
        claims: dict[str, object] = {
            "sub": credential.subject,
            "aud": audience,
            "client_id": principal.id,
            "act": acting(credential, principal),
            "txn": credential.root,
            "jti": self._mint_id(),
            "iat": now,
            "exp": now + int(life_s),
        }
        if scope:
            claims["scope"] = scope
        return self._sign(claims)

    async def _have(
        self, allowed: Exchange, principal: Principal, credential: Credential, asked: Asked
    ) -> Issued | Failure:
        """Have the authorization server of `allowed` give a token, for what the gateway vouches for."""
        server = allowed.server
        assert server is not None
        secret = self._secrets().get(server.secret)
        if secret is None:
            return _NO_SECRET
        scope = " ".join(asked.scope)
        life_s = min(ASSERTION_LIFE_S, credential.expires - self._wall())

        async def fetch() -> Token | NoToken:
            form = {
                "grant_type": GRANT_TYPE,
                "subject_token": self._signed(principal, credential, server.token_url, life_s, scope),
                "subject_token_type": JWT,
                "requested_token_type": asked.kind,
                "audience": asked.audience,
                "scope": scope,
            }
            given = {name: value for name, value in form.items() if value}
            return await self._servers.ask(allowed.document, server, secret, given)

        # The credential as it was shown, so that what one was verified for is never another's.
        shown = hashlib.sha256(asked.credential.encode()).digest()
        key = (server, secret, principal.id, shown, asked.audience, asked.scope, asked.kind)
        found = await self._tokens.get(key, fetch)
        if isinstance(found, NoToken):
            return _THEY_SAY.get(found.error, _THEY_REFUSE) if found.why is Fetch.REFUSED else _NO_ANSWER
        left_s = max(1, int(found.expires - self._clock()))
        return Issued(found.text, found.kind or ACCESS_TOKEN, left_s, found.scope or scope)

    async def close(self) -> None:
        """Ask no more."""
        await self._tokens.close()


def acting(credential: Credential, principal: Principal) -> dict[str, object]:
    """``act`` (RFC 8693 section 4.1): who acts now, and within it those whom the work has passed through before."""
    act: dict[str, object] = {}
    for actor in (*credential.lineage[1:], principal.id):
        act = {"sub": actor, "act": act} if act else {"sub": actor}
    return act


def _not_allowed() -> Answer:
    refusal = Refusal(Reason.METHOD_NOT_ALLOWED, "POST exchanges a credential for a token")
    head, body = answer(refusal, content_type=b"", flight_id="", revision="")
    head.fields.append((b"allow", b"POST"))
    return head, body
