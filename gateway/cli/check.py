"""``phoenixflight check``: validate everything that the gateway would read."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.run import DEFAULT_CONFIG, ConfigOption
from gateway.control import snapshot as snapshots
from gateway.control.config import load_config
from gateway.control.tls import TlsContexts, TlsError
from gateway.documents import DocumentError


def check(
    config: ConfigOption = DEFAULT_CONFIG,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
) -> None:
    """Validate configuration, policies, members and certificates.  Exit 2: file:line:column of each problem."""
    try:
        spec = load_config(config)
        loaded = snapshots.build(snapshots.read(spec), spec)
        snapshots.read_revoked(spec)
        TlsContexts.load(spec.identity, spec.connect_authority)
    except (DocumentError, TlsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if strict and loaded.warnings:
        raise typer.Exit(2)
    policies = loaded.snapshot.policies
    typer.echo(
        f"ok: {len(spec.listeners)} listeners, {len(policies.policies)} policies ({len(policies.rules)} rules), "
        f"{len(loaded.listed.agents)} agents, revision {loaded.snapshot.revision}"
    )
