"""Who may ask the admin port what, and who is an operator."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admin.attempts import Attempts
from gateway.admin.sessions import COOKIE, Session, Sessions
from gateway.identity import Principal, PrincipalPattern
from gateway.proxy.handshakes import site

log = logging.getLogger(__name__)

MIN_TOKEN_CHARACTERS = 16
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d+)?")
_PROBES = frozenset({"/healthz", "/readyz"})
"""What probes ask, who can prove nothing."""
_PUBLIC = frozenset({"/jwks.json"})
"""What is for everybody to know."""
_DOORS = frozenset({"/", "/session"})
"""What a browser needs before it can prove anything, with everything under `_PAGE`; nothing of the gateway's state."""
_PAGE = "/page/"
_READING = frozenset({"GET", "HEAD"})

READ_ONLY = "this port has neither admin.allow nor admin.tokenFile, so that nobody can show that they are an operator"
UNPROVEN = "an operator shows a certificate that admin.allow covers, or the token of admin.tokenFile"


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The bearer token in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no usable token in it.

    """
    token = path.read_text(encoding="ascii").strip()
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isprintable() or " " in token:
        raise ValueError(f"expected a token of {MIN_TOKEN_CHARACTERS} characters or more, without spaces")
    return token


class Caller(NamedTuple):
    """Who asks, as far as they have shown it."""

    operator: str
    """Who they are, for the log; empty for who is no operator."""
    why: str
    """What makes them one, or what is missing."""
    trusted: bool = False
    """It is the supervisor, which has asked who they are itself."""


class Refused(NamedTuple):
    """What a request is refused with."""

    status: int
    reason: str
    retry_after_s: int = 0


NOBODY = Caller("", UNPROVEN)
_SUPERVISOR = Caller("the supervisor", "only the supervisor can connect", trusted=True)


class Access:
    """What a caller has to show; with neither of the two, that it means this machine."""

    def __init__(
        self,
        allow: Sequence[PrincipalPattern] = (),
        token_file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nobody has a session yet.

        Args:
            allow: principals of certificates that may ask everything, and are operators.
            token_file: has the bearer token of those who may, too; read each time, so that it can be replaced.
            clock: seconds that do not go back, for sessions and for attempts that fail.

        """
        self._allow = allow
        self._token_file = token_file
        self._clock = clock
        self._sessions = Sessions()
        self._attempts = Attempts()

    @property
    def takes_tokens(self) -> bool:
        """Whether there is a token that makes an operator."""
        return self._token_file is not None

    def judge(
        self, method: str, path: str, headers: Headers, principal: Principal | None, address: str
    ) -> Caller | Refused:
        """Who asks, or why they may not.

        Args:
            method: of the request; so are the next two.
            path: what is asked.
            headers: its fields.
            principal: whom the connection's certificate names.
            address: where the connection comes from.

        """
        if path in _PROBES or path in _PUBLIC:
            return NOBODY
        if method not in _READING:
            foreign = _foreign(headers)
            if foreign:
                return Refused(403, foreign)
        if not (self._allow or self._token_file):
            # A page from elsewhere whose name leads to 127.0.0.1 by now (DNS rebinding) still says its own name; what
            # says none is no browser.
            host = _HOST.fullmatch(headers.get("host", "localhost"))
            if host is not None and is_loopback(host[1]):
                return Caller("", READ_ONLY)
            return Refused(421, "this admin port answers to the name localhost and to loopback addresses")
        proven = self._proven(headers, principal, address)
        if isinstance(proven, Refused) or proven.operator or path in _DOORS or path.startswith(_PAGE):
            return proven
        status = 403 if principal is not None else 401
        return Refused(status, "this takes a client certificate or a token that is allowed")

    def _proven(self, headers: Headers, principal: Principal | None, address: str) -> Caller | Refused:
        if principal is not None and any(pattern.matches(principal.id) for pattern in self._allow):
            return Caller(principal.id, "its certificate is covered by admin.allow")
        value = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        session = self._sessions.find(value, self._clock()) if value else None
        if session is not None and session.token and session.token == self._token():
            return Caller(session.who, "it has a session")
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if self._token_file is None or scheme.lower() != "bearer":
            return NOBODY
        return self.try_token(shown.strip(), address)

    def try_token(self, shown: str, address: str) -> Caller | Refused:
        """Who shows a token.

        Args:
            shown: what they say it is.
            address: where they are; who fails often from there has to wait.

        """
        now, where = self._clock(), site(address)
        wait_s = self._attempts.wait_s(where, now)
        if wait_s:
            return Refused(429, "too many tokens from there were wrong; try again later", wait_s)
        token = self._token()
        if token and hmac.compare_digest(token, _digest(shown)):
            return Caller(f"token from {address}", "it has shown the token")
        self._attempts.failed(where, now)
        log.warning("an admin token from %s was wrong", address)
        return NOBODY

    def begin(self, who: str) -> str:
        """Begin a session of the operator `who`, who has just shown the token; gives the cookie's value."""
        return self._sessions.begin(Session(who, self._token()), self._clock())

    def end(self, headers: Headers) -> None:
        """End the session that `headers` name, if there is one."""
        self._sessions.end(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""))

    def _token(self) -> bytes:
        """A digest of the token as it is now; empty when there is none to be had."""
        if self._token_file is None:
            return b""
        try:
            return _digest(read_token(self._token_file))
        except (OSError, ValueError) as error:
            log.error("the admin token in %s cannot be used: %s", self._token_file, error)
            return b""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _foreign(headers: Headers) -> str:
    """Why a request may be another page's doing, which has the browser show its user's cookie or certificate."""
    fetched = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    if fetched != "same-origin" or (origin is not None and origin.partition("://")[2] != headers.get("host")):
        return "this takes a page of this port's own"
    if origin is None and "sec-fetch-site" not in headers and "cookie" in headers:
        return "a session is for browsers, which say where a request comes from; others show a token"
    return ""


def caller_of(scope: Scope) -> Caller:
    """Who asks, as `Guarded` or `Trusted` found it."""
    found = scope.get("phoenixflight.caller", NOBODY)
    assert isinstance(found, Caller)
    return found


class Guarded:
    """An application behind `Access`, for the connections of one caller."""

    def __init__(self, app: ASGIApp, access: Access, principal: Principal | None) -> None:
        self._app = app
        self._access = access
        self._principal = principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        address = (scope.get("client") or ("",))[0]
        judged = self._access.judge(scope["method"], scope["path"], headers, self._principal, address)
        if isinstance(judged, Caller):
            scope["phoenixflight.caller"] = judged
            await self._app(scope, receive, send)
            return
        told = {"www-authenticate": "Bearer"} if judged.status == 401 else {}
        if judged.retry_after_s:
            told["retry-after"] = str(judged.retry_after_s)
        await PlainTextResponse(f"{judged.reason}\n", status_code=judged.status, headers=told)(scope, receive, send)


class Trusted:
    """An application where only those who may can connect: the supervisor, which has asked who they are itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["phoenixflight.caller"] = _SUPERVISOR
        await self._app(scope, receive, send)
