"""``phoenixflight check``: validate everything that the gateway would read."""

from __future__ import annotations

import typer

from gateway.cli.run import DEFAULT_CONFIG, ConfigOption
from gateway.control import snapshot as snapshots
from gateway.control.config import load_config
from gateway.control.tls import TlsContexts, TlsError
from gateway.documents import DocumentError


def check(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Validate configuration, policies, members and certificates.  Exit 2: file:line:column of each problem."""
    try:
        spec = load_config(config)
        snapshot = snapshots.build(snapshots.read(spec), spec)
        TlsContexts(spec.identity, spec.connect_authority)
    except (DocumentError, TlsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    policies = snapshot.policies.policies
    rules = sum(len(policy.spec.rules) for policy in policies)
    typer.echo(
        f"ok: {len(spec.listeners)} listeners, {len(policies)} policies ({rules} rules), "
        f"{len(snapshot.agents)} agents, revision {snapshot.revision}"
    )
