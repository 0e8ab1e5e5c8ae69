"""Authorization servers, asked for tokens (RFC 6749 section 3.2)."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import ssl
from collections import Counter
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_plus

import httpx
import msgspec

from gateway.brokering.tokens import Clock, Fetch, NoToken, Token
from gateway.policy.brokering import FromServer

TIMEOUT_S: Final = 5.0
"""For a question and its whole answer."""
MAX_ANSWER_BYTES: Final = 65536
DEFAULT_LIFE_S: Final = 60.0
"""Of a token whose server does not say how long it lives."""
MAX_LIFE_S: Final = 24 * 3600.0

_TOKEN = re.compile(r"[!-~]{1,8192}")
_TOKEN_TYPES = frozenset({"bearer", "n_a"})
_KNOWN_ERRORS = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)

log = logging.getLogger(__name__)


class _Granted(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: float | None = None
    scope: str = ""
    issued_token_type: str = ""


class _Refused(msgspec.Struct):
    error: str = ""


_granted = msgspec.json.Decoder(_Granted, strict=False)
_refused = msgspec.json.Decoder(_Refused)


class AuthorizationServers:
    """Asks them, over kept connections of its own."""

    def __init__(self, clock: Clock) -> None:
        """Ask nobody yet; `clock` gives the seconds that tokens' lives are counted by."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """How often which document's server was asked, by document and `Fetch` value."""
        self._clock = clock
        self._client: httpx.AsyncClient | None = None

    async def ask(self, document: str, server: FromServer, secret: str, form: Mapping[str, str]) -> Token | NoToken:
        """Have `server` give a token.

        Args:
            document: on whose account, by name.
            server: whom to ask, and as which client.
            secret: the client's own.
            form: the request's parameters, less the client's.

        """
        found = await self._ask(server, secret, form)
        result = found.why if isinstance(found, NoToken) else Fetch.OK
        self.counts[document, result.value] += 1
        if isinstance(found, NoToken):
            log.warning("%s: no token from %s: %s %s", document, server.token_url, result.value, found.error)
        return found

    async def _ask(self, server: FromServer, secret: str, form: Mapping[str, str]) -> Token | NoToken:
        client = self._client
        if client is None:
            # No proxy, no .netrc: a secret goes to the address that stands in the document.
            client = self._client = httpx.AsyncClient(
                verify=ssl.create_default_context(), timeout=TIMEOUT_S, trust_env=False, follow_redirects=False
            )
        # RFC 6749 section 2.3.1: both are form-encoded before they become a user and a password.
        pair = f"{quote_plus(server.client_id)}:{quote_plus(secret)}".encode("ascii")
        headers = {
            "authorization": f"Basic {base64.b64encode(pair).decode('ascii')}",
            "accept": "application/json",
            "accept-encoding": "identity",
        }
        asked = self._clock()
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                client.stream("POST", server.token_url, data=dict(form), headers=headers) as response,
            ):
                body = b""
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        return NoToken(Fetch.MALFORMED)
        except (httpx.HTTPError, TimeoutError):
            return NoToken(Fetch.UNREACHABLE)
        if response.status_code == 200:
            return _read(body, asked)
        if response.status_code >= 500 or response.status_code == 429:
            return NoToken(Fetch.UNREACHABLE)
        return NoToken(Fetch.REFUSED, _error(body))

    async def close(self) -> None:
        """Let the connections go."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _read(body: bytes, asked: float) -> Token | NoToken:
    try:
        granted = _granted.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return NoToken(Fetch.MALFORMED)
    life = DEFAULT_LIFE_S if granted.expires_in is None else min(granted.expires_in, MAX_LIFE_S)
    if granted.token_type.lower() not in _TOKEN_TYPES or not _TOKEN.fullmatch(granted.access_token) or not life > 0:
        return NoToken(Fetch.MALFORMED)
    return Token(granted.access_token, asked, asked + life, granted.scope, granted.issued_token_type)


def _error(body: bytes) -> str:
    try:
        error = _refused.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return error if error in _KNOWN_ERRORS else ""
