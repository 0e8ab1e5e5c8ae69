"""``phoenixflight approvals``: what waits for an approval, and answering it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import httpx
import msgspec
import typer

from gateway.admin.approvals import Approvals
from gateway.approvals import Scope, Waiting
from gateway.approvals.webhook import Said, Verb
from gateway.cli.admin import (
    DEFAULT_ADMIN,
    AdminOption,
    CaOption,
    CertOption,
    KeyOption,
    TokenOption,
    asked,
    connected,
)

app = typer.Typer(no_args_is_help=True, help="What waits for an approval, and answering it.")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Of what waits, as `list` tells it.")]
WhyOption = Annotated[str, typer.Option("--why", help="Goes into the record; of a denial, to the caller, too.")]
ScopeOption = Annotated[Scope, typer.Option("--scope", help="What an approval counts for.")]


@app.command("list")
def list_(
    admin: AdminOption = DEFAULT_ADMIN,
    token_file: TokenOption = None,
    cacert: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Tell what waits, the oldest first.  Exit 1: the gateway is silent.  2: a mistake."""
    with connected(admin, token_file, cacert, cert, key) as client:
        try:
            told = msgspec.convert(asked(client, "/approvals"), Approvals)
        except httpx.HTTPError as error:
            typer.echo(f"{admin}: {error}", err=True)
            raise typer.Exit(1) from None
    for waiting in told.approvals:
        typer.echo(_told(waiting))
    if not told.approvals:
        typer.echo("nothing waits for an approval")


@app.command()
def approve(
    id_: IdArgument,
    why: WhyOption = "",
    scope: ScopeOption = Scope.PACKET,
    admin: AdminOption = DEFAULT_ADMIN,
    token_file: TokenOption = None,
    cacert: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Let a packet that waits go on.  Exit 1: it does not wait, or you may not.  2: a mistake."""
    with connected(admin, token_file, cacert, cert, key) as client:
        _answer(client, admin, id_, Said(Verb.APPROVE, why, scope))


@app.command()
def deny(
    id_: IdArgument,
    why: WhyOption = "",
    admin: AdminOption = DEFAULT_ADMIN,
    token_file: TokenOption = None,
    cacert: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Have a packet that waits refused.  Exit 1: it does not wait, or you may not.  2: a mistake."""
    with connected(admin, token_file, cacert, cert, key) as client:
        _answer(client, admin, id_, Said(Verb.DENY, why))


def _answer(client: httpx.Client, admin: str, id_: str, said: Said) -> None:
    try:
        told = asked(client, f"/approvals/{quote(id_, safe='')}", "POST", msgspec.json.encode(said))
    except httpx.HTTPError as error:
        typer.echo(f"{admin}: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{told['id']}: {told['decision']}, by {told['by']}")


def _told(waiting: Waiting) -> str:
    parts = [
        f"{waiting.id}  until {waiting.until.isoformat(timespec='seconds')}",
        f"  {waiting.caller} asks {waiting.agent} for {waiting.capability}, by {waiting.policy}/{waiting.rule}",
        f"  {waiting.agent} offers {', '.join(waiting.agent_capabilities)}",
    ]
    packet = [("packet", waiting.flight_id), ("conversation", waiting.conversation), ("task", waiting.task)]
    parts.append("  " + ", ".join(f"{name} {value}" for name, value in packet if value))
    if waiting.reason:
        parts.append(f"  {waiting.reason}")
    return "\n".join(parts)
