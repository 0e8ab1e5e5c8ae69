"""``phoenixflight certs``: certificates for development."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.control.certs_dev import LEAF_DAYS, issue_dev_certificates
from gateway.identity import IdentityError, parse_spiffe_id

app = typer.Typer(no_args_is_help=True, help="Certificates for development.")


@app.callback()
def _group() -> None:
    """Certificates for development."""


@app.command()
def dev(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("certs"),
    trust_domain: Annotated[str, typer.Option(help="The SPIFFE trust domain.")] = "mesh.local",
    svid: Annotated[list[str], typer.Option(help="NAME=/spiffe/path; may be given again.")] = [],  # noqa: B006
    days: Annotated[float, typer.Option(help="Validity of the SVIDs.")] = LEAF_DAYS,
    force: Annotated[bool, typer.Option("--force", help="Make a new CA even where there is one.")] = False,
) -> None:
    """Make a throw-away CA (or use the one that is there), the gateway's SVID, and one for each --svid."""
    _check_id(trust_domain, f"--trust-domain {trust_domain}")
    if "/" in trust_domain:
        raise typer.BadParameter(f"--trust-domain {trust_domain}: a path belongs to --svid")
    svids: dict[str, str] = {}
    for each in svid:
        name, _, path = each.partition("=")
        if not path.startswith("/") or not name.replace("-", "").isalnum():
            raise typer.BadParameter(f"--svid {each}: expected NAME=/spiffe/path")
        _check_id(f"{trust_domain}{path}", f"--svid {each}")
        svids[name] = path
    try:
        written = issue_dev_certificates(
            out, trust_domain=trust_domain, svids=svids, now=datetime.now(UTC), days=days, force=force
        )
    except (OSError, ValueError) as error:
        typer.echo(f"certs dev: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"wrote {', '.join(written)} to {out}/ (for development only)")


def _check_id(text: str, option: str) -> None:
    try:
        parse_spiffe_id(f"spiffe://{text}")
    except IdentityError as error:
        raise typer.BadParameter(f"{option}: {error}") from None
