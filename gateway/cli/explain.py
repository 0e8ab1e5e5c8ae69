"""``phoenixflight explain``: what would become of a packet, and why."""

from __future__ import annotations

import random
import time
from typing import Annotated

import typer

from gateway.cli.run import DEFAULT_CONFIG, ConfigOption
from gateway.control import snapshot as snapshots
from gateway.control.config import load_config
from gateway.decision import Shadow
from gateway.documents import DocumentError
from gateway.explain import Explanation, RuleConsidered, hypothesis
from gateway.explain import explain as explain_packet


def explain(
    caller: Annotated[str, typer.Option("--from", help="The caller's SPIFFE id.")],
    header: Annotated[list[str], typer.Option("--header", "-H", help="'name: value'; may be given again.")] = [],  # noqa: B006
    method: str = "POST",
    path: str = "/",
    authority: str = "gateway.flight.internal",
    signer: Annotated[
        str | None, typer.Option("--signer", help="Suppose that this SPIFFE id signed the packet.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Decide a hypothetical packet: every rule considered, the agents, the pick.  Exit 3: it would be refused."""
    try:
        packet = hypothesis(caller, header, method=method, path=path, authority=authority, signer=signer)
        spec = load_config(config)
        snapshot = snapshots.build(snapshots.read(spec), spec).snapshot
    except (DocumentError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    told = explain_packet(
        packet.head, packet.principal, snapshot, time.time(), random.getrandbits, assume=packet.assume
    )
    _print(told)
    if not told.allow:
        raise typer.Exit(3)


def _print(told: Explanation) -> None:
    typer.echo(f"revision {told.revision}")
    for capability in told.capabilities:
        typer.echo(f"\n{capability}: rules")
        for rule in told.rules:
            if rule.capability == capability:
                typer.echo(f"  {rule.policy}/{rule.rule}: {rule.verdict}{_inputs(rule)}")
    if told.agents:
        typer.echo("\nagents")
    for agent in told.agents:
        by = f" (by {agent.policy}/{agent.rule})" if agent.policy else ""
        typer.echo(f"  {agent.name}: {agent.why}{by}")
    if told.allow:
        typer.echo(f"\nallow: policy {told.policy}, rule {told.rule}, agent {told.agent}")
    else:
        by = f" (policy {told.policy}, rule {told.rule})" if told.policy else ""
        typer.echo(f"\nrefuse {told.status} {told.reason}{by}: {told.detail}")
    if told.shadow is not None:
        typer.echo(_supposed(told.shadow))


def _inputs(rule: RuleConsidered) -> str:
    """What the rule asked, and what it found."""
    lines = ""
    if rule.when_is:
        lines += f"\n      when {rule.when}: {rule.when_is}"
    if rule.require_is:
        lines += f"\n      require {rule.require}: {rule.require_is}"
    return lines


def _supposed(shadow: Shadow) -> str:
    what = f"allow, to {' or '.join(shadow.agents)}" if shadow.allow else f"refuse ({shadow.reason})"
    return f"with shadow policies enforced: {what}, by {', '.join(shadow.rules)}"
