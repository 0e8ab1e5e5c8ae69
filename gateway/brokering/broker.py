"""What agents are given: secrets from files and tokens from authorization servers, as header fields."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

from gateway.brokering.secrets import NO_SECRETS, Secrets
from gateway.brokering.servers import AuthorizationServers
from gateway.brokering.tokens import NEGATIVE_S, Clock, NoToken, Token, TokenCache
from gateway.messages import Field, Fields
from gateway.policy.brokering import Brokered, FromFile, FromServer, Injection
from gateway.refusal import Reason, Refusal

RETRY_AFTER_S: Final = math.ceil(NEGATIVE_S)


class Broker:
    """Has the secrets that are in force, and the tokens."""

    def __init__(self, servers: AuthorizationServers, clock: Clock) -> None:
        self.secrets: Secrets = NO_SECRETS
        """Replaced as a whole when files change."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """How often what a document names was injected, or was not, by document and result."""
        self._servers = servers
        self._tokens = TokenCache(clock)

    def at_hand(self, brokered: Brokered) -> Fields | Refusal | None:
        """The fields for the agent, or why there are none; ``None`` when a server has to be asked."""
        fields: Fields = []
        for injection in brokered.injections:
            found = self._at_hand(injection)
            if found is None or isinstance(found, Refusal):
                return found
            fields.append(found)
        return fields

    def _at_hand(self, injection: Injection) -> Field | Refusal | None:
        source = injection.source
        if isinstance(source, FromFile):
            return self._field(injection, self.secrets.get(source.file))
        secret = self.secrets.get(source.secret)
        if secret is None:
            return self._field(injection, None)
        token = self._tokens.at_hand((source, secret))
        return None if token is None else self._told(injection, token)

    async def fetch(self, brokered: Brokered) -> Fields | Refusal:
        """As `at_hand`, having asked whom it takes."""
        fields: Fields = []
        for injection in brokered.injections:
            found = self._at_hand(injection)
            if found is None:
                source = injection.source
                assert isinstance(source, FromServer)
                found = self._told(injection, await self._token(injection.document, source))
            if isinstance(found, Refusal):
                return found
            fields.append(found)
        return fields

    async def _token(self, document: str, source: FromServer) -> Token | NoToken:
        secret = self.secrets.get(source.secret)
        assert secret is not None
        form = {"grant_type": "client_credentials", "scope": source.scope, "audience": source.audience}
        asked = {name: value for name, value in form.items() if value}
        # A token is of the client's secret, too: with another one there is another token.
        return await self._tokens.get((source, secret), lambda: self._servers.ask(document, source, secret, asked))

    def _told(self, injection: Injection, token: Token | NoToken) -> Field | Refusal:
        return self._field(injection, token.text if isinstance(token, Token) else None)

    def _field(self, injection: Injection, secret: str | None) -> Field | Refusal:
        if secret is not None:
            return injection.header, injection.prefix + secret.encode("ascii")
        self.counts[injection.document, "unavailable"] += 1
        detail = f"the secret of {injection.document}, which the agent needs, is not to be had; try again later"
        return Refusal(Reason.SECRET_UNAVAILABLE, detail, retry_after_s=RETRY_AFTER_S)

    def injected(self, brokered: Brokered) -> None:
        """The fields are on their way to the agent."""
        for injection in brokered.injections:
            self.counts[injection.document, "injected"] += 1

    def unidentified(self, brokered: Brokered) -> Refusal:
        """The agent has not shown who it is: it gets neither the secret nor the packet."""
        for injection in brokered.injections:
            self.counts[injection.document, "unidentified"] += 1
        named = ", ".join(injection.document for injection in brokered.injections)
        detail = f"the agent is to be given the secret of {named}, but its connection shows no verified SPIFFE id"
        return Refusal(Reason.UPSTREAM_UNIDENTIFIED, detail)

    async def close(self) -> None:
        """Ask no more."""
        await self._tokens.close()
