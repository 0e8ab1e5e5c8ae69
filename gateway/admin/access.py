"""Who may ask the admin port what."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.identity import Principal, PrincipalPattern

log = logging.getLogger(__name__)

MIN_TOKEN_CHARACTERS = 16
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d+)?")
_OPEN = frozenset({"/healthz", "/readyz"})
"""What probes ask, who can prove nothing."""


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


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller has to show; with neither of the two, that it means this machine."""

    allow: Sequence[PrincipalPattern] = ()
    """Principals of certificates that may ask everything."""
    token_file: Path | None = None
    """Has the bearer token of those who may, too; read each time, so that it can be replaced."""

    def refusal(self, path: str, headers: Headers, principal: Principal | None) -> tuple[int, str]:
        """Status and reason of what a request is refused with; 0 when it is not.

        Args:
            path: what is asked.
            headers: the request's.
            principal: whom the connection's certificate names.

        """
        if path in _OPEN:
            return 0, ""
        if not (self.allow or self.token_file):
            # A page from elsewhere whose name leads to 127.0.0.1 by now (DNS rebinding) still says its own name; what
            # says none is no browser.
            host = _HOST.fullmatch(headers.get("host", "localhost"))
            if host is not None and is_loopback(host[1]):
                return 0, ""
            return 421, "this admin port answers to the name localhost and to loopback addresses"
        if self._proven(headers, principal):
            return 0, ""
        return (403 if principal is not None else 401), "this takes a client certificate or a token that is allowed"

    def _proven(self, headers: Headers, principal: Principal | None) -> bool:
        if principal is not None and any(pattern.matches(principal.id) for pattern in self.allow):
            return True
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if self.token_file is None or scheme.lower() != "bearer":
            return False
        try:
            token = read_token(self.token_file)
        except (OSError, ValueError) as error:
            log.error("the admin token in %s cannot be used: %s", self.token_file, error)
            return False
        return hmac.compare_digest(token.encode(), shown.strip().encode("latin-1"))


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
        status, reason = self._access.refusal(scope["path"], Headers(scope=scope), self._principal)
        if not status:
            await self._app(scope, receive, send)
            return
        headers = {"www-authenticate": "Bearer"} if status == 401 else None
        await PlainTextResponse(f"{reason}\n", status_code=status, headers=headers)(scope, receive, send)
