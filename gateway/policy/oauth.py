"""What documents say of an OAuth 2.0 authorization server, and how its parts are checked."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from gateway.documents import Spec

_SCOPE_TOKEN = re.compile(r"[!#-\[\]-~]+")
"""RFC 6749 section 3.3."""
_VISIBLE = re.compile(r"[!-~]{1,2048}")


def _token_url(text: str) -> str:
    # RFC 6749 section 3.2: no fragment, and TLS, since the client's secret goes there.
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        raise ValueError("expected an https:// URL") from None
    if not _VISIBLE.fullmatch(text) or not host or url.fragment or url.username is not None:
        raise ValueError("expected an https:// URL, without user information and fragment")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(host)):
        raise ValueError("expected an https:// URL; http:// is for servers on this machine, by their loopback address")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _scope(text: str) -> str:
    if _SCOPE_TOKEN.fullmatch(text) is None:
        raise ValueError(f"{text[:80]!r} is not a scope: printable ASCII without spaces, quotes and backslashes")
    return text


def _visible(text: str) -> str:
    if _VISIBLE.fullmatch(text) is None:
        raise ValueError("expected printable ASCII without spaces")
    return text


Scope = Annotated[str, AfterValidator(_scope)]
Visible = Annotated[str, AfterValidator(_visible)]
"""Printable ASCII without spaces."""


class AuthorizationServer(Spec):
    """Where tokens are had, and who the gateway is there."""

    token_url: Annotated[str, AfterValidator(_token_url)]
    client_id: str = Field(min_length=1, max_length=1024, pattern=r"^[ -~]+$")
    client_secret_file: Path
    """Relative to the document's folder."""
