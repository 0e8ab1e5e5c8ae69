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
) -> None:
    """Make a throw-away CA (or use the one that is there), the gateway's SVID, and one for each --svid."""
    svids: dict[str, str] = {}
    for each in svid:
        name, separator, path = each.partition("=")
        try:
            parse_spiffe_id(f"spiffe://{trust_domain}{path}")
        except IdentityError as error:
            raise typer.BadParameter(f"--svid {each}: {error}") from None
        if not separator or not path or not name.replace("-", "").isalnum():
            raise typer.BadParameter(f"--svid {each}: expected NAME=/spiffe/path")
        svids[name] = path
    written = issue_dev_certificates(out, trust_domain=trust_domain, svids=svids, now=datetime.now(UTC), days=days)
    typer.echo(f"wrote {', '.join(written)} to {out}/ (for development only)")
