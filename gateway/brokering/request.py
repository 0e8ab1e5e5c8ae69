"""A token exchange request and its answers, as RFC 8693 and RFC 6749 have them.  Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from gateway.messages import ResponseHead

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name, no token
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
CREDENTIAL: Final = "urn:phoenixflight:token-type:flight-credential"

MAX_PARAMETERS: Final = 32
_FORBIDDEN = re.compile(r"[^ !#-\[\]-~]")
"""What no ``error_description`` has (RFC 6749 section 5.2)."""

Answer = tuple[ResponseHead, bytes]


class Code(Enum):
    """``error`` (RFC 6749 section 5.2, RFC 8693 section 2.2.2), and the status that it goes with."""

    INVALID_REQUEST = "invalid_request", 400
    """A credential that does not hold, or not for this, is one, too: RFC 8693 says so."""
    INVALID_CLIENT = "invalid_client", 401
    INVALID_SCOPE = "invalid_scope", 400
    INVALID_TARGET = "invalid_target", 400
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type", 400
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable", 503

    @property
    def text(self) -> str:
        """As it is told."""
        return self.value[0]


class Failure(NamedTuple):
    """Why there is no token."""

    code: Code
    description: str
    retry_after_s: int = 0


class Asked(NamedTuple):
    """What a caller wants."""

    credential: str
    audience: str
    scope: tuple[str, ...]
    kind: str
    """Of the token, `ACCESS_TOKEN` or `JWT`."""


class Issued(NamedTuple):
    """What it gets."""

    token: str
    kind: str
    expires_in: int
    scope: str


def read(body: bytes) -> Asked | Failure:
    """What the form in `body` asks for."""
    found = _form(body)
    if isinstance(found, Failure):
        return found
    grant_type = found.get("grant_type")
    if grant_type is None:
        return Failure(Code.INVALID_REQUEST, "grant_type is missing")
    if grant_type != GRANT_TYPE:
        return Failure(Code.UNSUPPORTED_GRANT_TYPE, f"expected {GRANT_TYPE}")
    credential, kind = found.get("subject_token"), found.get("subject_token_type")
    if credential is None:
        return Failure(Code.INVALID_REQUEST, "subject_token is missing: the flight-credential of the packet")
    if kind not in (CREDENTIAL, JWT):
        return Failure(Code.INVALID_REQUEST, f"subject_token_type: expected {CREDENTIAL} or {JWT}")
    if "actor_token" in found or "actor_token_type" in found:
        return Failure(Code.INVALID_REQUEST, "who acts is told by the certificate: leave actor_token out")
    audience, resource = found.get("audience"), found.get("resource")
    if audience is not None and resource is not None and audience != resource:
        return Failure(Code.INVALID_TARGET, "one third party at a time: audience and resource name two")
    target = audience or resource
    if target is None:
        return Failure(Code.INVALID_REQUEST, "audience or resource is missing: who is to take the token")
    wanted = found.get("requested_token_type", ACCESS_TOKEN)
    if wanted not in (ACCESS_TOKEN, JWT):
        return Failure(Code.INVALID_REQUEST, f"requested_token_type: expected {ACCESS_TOKEN} or {JWT}")
    scope = tuple(dict.fromkeys(found.get("scope", "").split()))
    return Asked(credential, target, scope, wanted)


def _form(body: bytes) -> dict[str, str] | Failure:
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=MAX_PARAMETERS, errors="strict")
    except ValueError:
        return Failure(Code.INVALID_REQUEST, "the body is no form (application/x-www-form-urlencoded)")
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            # RFC 8693 section 2.1 lets these come several times; one that is asked for all of them may say no.
            code = Code.INVALID_TARGET if name in ("audience", "resource") else Code.INVALID_REQUEST
            return Failure(code, f"{name} stands there more than once")
        found[name] = value
    return found


def granted(issued: Issued) -> Answer:
    """The answer with a token (RFC 8693 section 2.2.1)."""
    content = {
        "access_token": issued.token,
        "issued_token_type": issued.kind,
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
        "scope": issued.scope,
    }
    return _answer(200, {name: value for name, value in content.items() if value != ""})


def refused(failure: Failure) -> Answer:
    """The answer without one (RFC 6749 section 5.2)."""
    error, status = failure.code.value
    head, body = _answer(status, {"error": error, "error_description": _FORBIDDEN.sub("'", failure.description)[:1000]})
    if failure.retry_after_s:
        head.fields.append((b"retry-after", b"%d" % failure.retry_after_s))
    return head, body


def _answer(status: int, content: dict[str, object]) -> Answer:
    body = msgspec.json.encode(content)
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"pragma", b"no-cache"),
    ]
    return ResponseHead(status, fields), body
