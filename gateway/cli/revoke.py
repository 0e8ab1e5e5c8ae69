"""``phoenixflight revoke``: stop a principal, key, credential, conversation or task now; list and undo."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import typer

from gateway.authority import Kind
from gateway.cli.admin import DEFAULT_ADMIN, AdminOption, CaOption, CertOption, KeyOption, TokenOption, asked, connected


def revoke(
    kind: Annotated[Kind | None, typer.Argument(help="What it is.")] = None,
    value: Annotated[str, typer.Argument(help="Which one: a SPIFFE id, a thumbprint, an id.")] = "",
    lasts: Annotated[str, typer.Option("--for", help="How long, such as 1h; without it until it is undone.")] = "",
    why: Annotated[str, typer.Option("--why", help="For those who look at it later.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Let it in again.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Tell what is revoked.")] = False,
    admin: AdminOption = DEFAULT_ADMIN,
    token_file: TokenOption = None,
    cacert: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Stop something now, in all replicas; what is under way ends.  Exit 1: it was not done.  2: a mistake."""
    if listed == bool(kind) or bool(kind) != bool(value):
        typer.echo("expected KIND and VALUE, or --list", err=True)
        raise typer.Exit(2)
    parts = {"kind": kind.value if kind else "", "value": value, "for": lasts, "why": why}
    query = httpx.QueryParams({name: part for name, part in parts.items() if part})
    with connected(admin, token_file, cacert, cert, key) as client:
        try:
            if listed:
                answer = asked(client, "/revocations")
            else:
                answer = asked(client, f"/revocations?{query}", "DELETE" if undo else "POST")
        except httpx.HTTPError as error:
            typer.echo(f"{admin}: {error}", err=True)
            raise typer.Exit(1) from None
    if listed:
        for each in answer["revocations"]:
            typer.echo(_line(each))
    else:
        typer.echo(f"{'no longer revoked' if undo else 'revoked'}: {parts['kind']} {value}")
    if answer["trouble"]:
        typer.echo(f"not known everywhere: {answer['trouble']}", err=True)
        raise typer.Exit(1)


def _line(each: dict[str, Any]) -> str:
    until = f"until {each['until']}" if each["until"] else "until it is undone"
    return f"{each['kind']} {each['value']}: {until}, by {each['who']}" + (f": {each['why']}" if each["why"] else "")
