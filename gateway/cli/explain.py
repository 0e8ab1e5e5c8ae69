"""``phoenixflight explain``: what would become of a packet, and why."""

from __future__ import annotations

import random
import time
from typing import Annotated

import typer

from gateway.cli.run import DEFAULT_CONFIG, ConfigOption
from gateway.control import snapshot as snapshots
from gateway.control.config import load_config
from gateway.decision import Forward, Snapshot, decide
from gateway.documents import DocumentError
from gateway.identity import IdentityError, Principal, parse_spiffe_id
from gateway.messages import RequestHead
from gateway.packet import Capabilities
from gateway.policy.model import To


def explain(
    caller: Annotated[str, typer.Option("--from", help="The caller's SPIFFE id.")],
    header: Annotated[list[str], typer.Option("--header", "-H", help="'name: value'; may be given again.")] = [],  # noqa: B006
    method: str = "POST",
    path: str = "/",
    authority: str = "gateway.flight.internal",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Decide a hypothetical packet: every rule considered, the agents, the pick.  Exit 3: it would be refused."""
    fields: list[tuple[bytes, bytes]] = []
    for each in header:
        name, separator, value = each.partition(":")
        if not separator:
            raise typer.BadParameter(f"--header {each!r}: expected 'name: value'")
        fields.append((name.strip().lower().encode(), value.strip().encode()))
    try:
        principal = Principal(parse_spiffe_id(caller))
        spec = load_config(config)
        snapshot = snapshots.build(snapshots.read(spec), spec)
    except (DocumentError, IdentityError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    head = RequestHead(method.encode(), b"https", authority.encode(), path.encode(), fields)
    verdict = decide(head, principal, snapshot, time.time(), random.getrandbits)
    packet = verdict.packet
    if packet is not None:
        _rules(snapshot, principal, packet.capabilities)
        _agents(snapshot, packet.capabilities)
    if isinstance(verdict, Forward):
        granted = verdict.route.grants[verdict.agent.name]
        typer.echo(f"\nallow: policy {granted.policy}, rule {granted.rule}, agent {verdict.agent.name}")
        return
    refusal = verdict.refusal
    by = f" (policy {refusal.policy}, rule {refusal.rule})" if refusal.policy else ""
    typer.echo(f"\nrefuse {refusal.reason.status} {refusal.reason.slug}{by}: {refusal.detail}")
    raise typer.Exit(3)


def _rules(snapshot: Snapshot, principal: Principal, capabilities: Capabilities) -> None:
    typer.echo(f"revision {snapshot.revision}")
    for capability in capabilities.names:
        typer.echo(f"\n{capability}: rules")
        for considered in snapshot.policies.consider(principal, capability):
            rule = considered.rule
            if not considered.speaks:
                why = "the policy does not speak about this capability"
            elif not considered.caller:
                why = "the caller is not in 'from'"
            else:
                why = f"{rule.effect.value}s{_to(rule.to)}"
            typer.echo(f"  {considered.policy}/{rule.name}: {why}")


def _to(to: To | None) -> str:
    if to is None:
        return ""
    parts = [f"trust of at least {to.min_trust}"] if to.min_trust else []
    parts += [f"{key}={value}" for key, value in to.labels.items()]
    return " agents with " + ", ".join(parts)


def _agents(snapshot: Snapshot, capabilities: Capabilities) -> None:
    typer.echo("\nagents")
    for agent in snapshot.agents:
        missing = [name for name in capabilities.names if name not in agent.capabilities]
        if missing:
            why = f"lacks {', '.join(missing)}"
        elif agent.trust < capabilities.min_trust:
            why = f"trust {agent.trust} is below the packet's {capabilities.min_trust}"
        else:
            why = f"capable, {agent.state.value}, trust {agent.trust}"
        typer.echo(f"  {agent.name}: {why}")
