"""How many packets may wait for an approval, and where it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.documents import Duration, ErrorAt, Spec

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def _url(text: str) -> str:
    # What is wrong with it is told without it: there may be a password in it.
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        raise ValueError("expected a URL such as https://approvals.example/ask") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("expected a URL such as https://approvals.example/ask")
    if url.scheme == "http" and url.hostname not in LOOPBACK:
        raise ValueError("expected https://: whoever is on the way of a plain answer could approve anything")
    return text


class WebhookSpec(Spec):
    """Who is told of each packet that begins to wait, and may answer at once."""

    url: Annotated[str, AfterValidator(_url), Field(repr=False)]
    secret_file: Path
    """Has the secret that each request is signed with."""
    timeout_s: Annotated[Duration, Field(alias="timeout", gt=0, le=3600)] = 5.0
    """For each request; then it has failed, and the packet waits on for somebody else."""
    ca_file: Path | None = None
    """Who vouches for its certificate; without one, whom the system trusts."""

    @model_validator(mode="after")
    def _tls_where_there_is_a_ca(self) -> WebhookSpec:
        if self.ca_file is not None and not self.url.startswith("https://"):
            raise ErrorAt("a caFile is for an https:// url", "caFile")
        return self


class ApprovalsSpec(Spec):
    """Bounds of what waits; each process has its own."""

    max_waiting: int = Field(default=1000, ge=1)
    """Packets; beyond it 503 overloaded."""
    max_waiting_per_caller: int = Field(default=100, ge=1)
    """The same of one caller."""
    remember_s: Annotated[Duration, Field(alias="remember", gt=0, le=86400)] = 600.0
    """How long an approval for a conversation counts."""
    webhook: WebhookSpec | None = None
