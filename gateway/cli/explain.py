"""``phoenixflight explain``: what became of a packet, or would become of one, and why."""

from __future__ import annotations

import random
import time
from typing import Annotated
from urllib.parse import urlencode

import httpx
import msgspec
import typer

from gateway.admin.explain import Told
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
from gateway.cli.run import DEFAULT_CONFIG, ConfigOption
from gateway.control import snapshot as snapshots
from gateway.control.config import load_config
from gateway.decision import Shadow
from gateway.documents import DocumentError
from gateway.explain import Explanation, RuleConsidered, hypothesis
from gateway.explain import explain as explain_packet


def explain(
    packet_id: Annotated[
        str, typer.Argument(metavar="ID", help="A packet's id, of late or recorded by a running gateway.")
    ] = "",
    caller: Annotated[str, typer.Option("--from", help="The caller's SPIFFE id, of a packet that might be.")] = "",
    header: Annotated[list[str], typer.Option("--header", "-H", help="'name: value'; may be given again.")] = [],  # noqa: B006
    method: str = "POST",
    path: str = "/",
    authority: str = "gateway.flight.internal",
    signer: Annotated[
        str | None, typer.Option("--signer", help="Suppose that this SPIFFE id signed the packet.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    admin: AdminOption = DEFAULT_ADMIN,
    token_file: TokenOption = None,
    cacert: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Tell why a packet fares as it does: every rule considered, the agents, the pick.

    With an ID a running gateway is asked at --admin about a packet that it had.  Without one, the packet that --from
    and --header describe is decided by the files of --config.  Exit 1: the gateway does not know it, or does not
    answer.  2: a mistake.  3: it was, or would be, refused.
    """
    if bool(packet_id) == bool(caller):
        typer.echo("say which packet: its ID, or --from and --header of one that might be", err=True)
        raise typer.Exit(2)
    if packet_id:
        client = connected(admin, token_file, cacert, cert, key)
        _explain_known(client, admin, packet_id)
        return
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


def _explain_known(client: httpx.Client, admin: str, packet_id: str) -> None:
    with client:
        try:
            told = msgspec.convert(asked(client, f"/explain?{urlencode({'id': packet_id})}"), Told)
        except httpx.HTTPError as error:
            typer.echo(f"{admin}: {error}", err=True)
            raise typer.Exit(1) from None
    recorded = told.recorded
    assert recorded is not None
    by = f" (policy {recorded.policy}, rule {recorded.rule})" if recorded.policy else ""
    came_to = f"allowed, to {recorded.agent}" if recorded.allow else f"refused: {recorded.reason}"
    typer.echo(f"{recorded.time.isoformat()} {recorded.flight_id} of {recorded.caller or 'nobody known'}")
    typer.echo(f"{recorded.capability}: {came_to}{by}, under revision {recorded.revision}")
    if told.revision:
        typer.echo(f"decided under revision {recorded.revision}, now {told.revision} is in force")
    if told.explanation is not None:
        typer.echo("\nunder what is in force now:")
        _print(told.explanation)
    if not recorded.allow:
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
        what = "ask" if told.asks else "allow"
        typer.echo(f"\n{what}: policy {told.policy}, rule {told.rule}, agent {told.agent}")
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
    what = f"{'ask' if shadow.asks else 'allow'}, to {' or '.join(shadow.agents)}"
    if not shadow.allow:
        what = f"refuse ({shadow.reason})"
    return f"with shadow policies enforced: {what}, by {', '.join(shadow.rules)}"
