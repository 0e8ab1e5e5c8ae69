"""``phoenixflight ring``: which agent has which keys, and what a change of members would move."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from random import Random
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.run import DEFAULT_CONFIG, ConfigOption
from gateway.control.config import GatewaySpec, load_config
from gateway.control.files import read_text
from gateway.documents import DocumentError
from gateway.membership.file import load_agents
from gateway.routing import DEFAULT_POINTS, Agent, AgentState, Ring
from gateway.routing.plan import Plan, fair_shares, key_shares, plan, spread
from gateway.routing.simulate import PACKETS_PER_AGENT, Run, simulate

app = typer.Typer(no_args_is_help=True, help=__doc__)

_ADMIN_TIMEOUT_S = 10.0
_CHOICES = 5
_WIDTH = 140
"""Of tables that go to no terminal."""

PointsOption = Annotated[int, typer.Option("--points", min=1, help="Virtual nodes of an agent of weight 1.")]
CapabilityOption = Annotated[
    str, typer.Option("--capability", help="What the agents must offer, all of it: code.execute,lang.python")
]


@app.callback()
def ring() -> None:
    """Which agent has which keys, and what a change of members would move."""


@app.command()
def show(
    members: Annotated[Path | None, typer.Argument(help="The agents.  Default: those of --config.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    capability: CapabilityOption = "",
    key: Annotated[str, typer.Option("--key", help="A conversation: who has it, and who comes next.")] = "",
    points: Annotated[int | None, typer.Option("--points", min=1, help="Default: what --config says.")] = None,
    admin: Annotated[str, typer.Option("--admin", help="The members of a running gateway: its admin URL.")] = "",
) -> None:
    """Show the ring of the agents that offer something, policies aside.

    Exit 1: nobody is on it.  Exit 2: a file is not valid, or the gateway does not answer.
    """
    wanted = _capabilities(capability)
    if admin:
        known = _running(admin)
    elif members is not None:
        known = _members(members)
    else:
        spec = _configuration(config)
        known, points = _members(spec.members), points or spec.ring.points
    offering = [agent for agent in known if wanted <= agent.capabilities]
    shown = _ring(offering, points or DEFAULT_POINTS)
    if not shown.agents:
        typer.echo(f"no agent is ready that offers {', '.join(sorted(wanted)) or 'anything'}", err=True)
        raise typer.Exit(1)
    shares, fair = key_shares(shown), fair_shares(shown)
    evenness = spread(shares, fair)
    table = _table("agent", "zone", "trust", "reliability", "points", "keys", "of its share")
    for agent, share, due in zip(shown.agents, shares.tolist(), fair.tolist(), strict=True):
        table.add_row(
            agent.name,
            agent.zone,
            f"{agent.trust:g}",
            f"{agent.reliability:g}",
            f"{due * len(shown):.0f}",
            f"{share:.2%}",
            f"{share / due:.3f} ×",
        )
    _console().print(table)
    away = [agent for agent in offering if agent.state is not AgentState.READY]
    for agent in away:
        typer.echo(f"not on it: {agent.name} ({agent.state.value})")
    typer.echo(
        f"{len(shown.agents)} agents, {len(shown)} points; at most {evenness.highest:.3f} × a fair share, "
        f"coefficient of variation {evenness.variation:.3f}"
    )
    if key:
        owner, *others = (agent.name for agent in islice(shown.walk(key.encode()), _CHOICES))
        then = f"; then {', '.join(others)}" if others else ""
        typer.echo(f"{key}: {owner}{then}")


@app.command("plan")
def plan_(
    before: Annotated[Path, typer.Argument(help="The agents as they are.")],
    after: Annotated[Path, typer.Argument(help="The agents as they would be.")],
    capability: CapabilityOption = "",
    points: PointsOption = DEFAULT_POINTS,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with every move from agent to agent.")] = False,
) -> None:
    """Tell the share of keys that each ring would move if other agents were members.

    There is a ring for each set of capabilities that packets ask for.  Without --capability it is every single one, and
    all that an agent offers; sets that the same agents offer are told once.  Exit 2: a file is not valid.
    """
    old, new = _members(before), _members(after)
    plans = _plans(old, new, [_capabilities(capability)] if capability else _sets(old + new), points)
    if as_json:
        typer.echo(json.dumps([_document(*each) for each in plans], indent=2))
        return
    table = _table("capabilities", "agents", "joined", "left", "reweighted", "moved", "among survivors", "overhead")
    for sets, was, now, change in plans:
        table.add_row(
            "\n".join(sets),
            f"{len(was.agents)} → {len(now.agents)}",
            *(_names(names) for names in (change.joined, change.left, change.reweighted)),
            f"{change.moved:.2%}",
            f"{change.between_survivors:.2%}",
            f"{change.overhead:.2f} ×",
        )
    _console().print(table)
    for sets, _, _, change in plans:
        for move in change.moves[:_CHOICES]:
            typer.echo(f"{sets[0]}: {move.origin} → {move.target} {move.share:.2%}")
        if len(change.moves) > _CHOICES:
            typer.echo(f"{sets[0]}: {len(change.moves) - _CHOICES} smaller moves; --json tells them")


@app.command("simulate")
def simulate_(
    agents: Annotated[list[int], typer.Option("--agents", min=1, help="How many; may be given again.")],
    points: PointsOption = DEFAULT_POINTS,
    joins: Annotated[int, typer.Option(min=0)] = 20,
    leaves: Annotated[int, typer.Option(min=0)] = 20,
    seed: int = 1,
    plot: Annotated[Path | None, typer.Option(help="A picture of the last of them, .svg or .png.")] = None,
) -> None:
    """Simulate rings of agents that weigh the same: their keys, members that join and leave, packets under way.

    The same arguments give the same numbers.  Exit 2: the picture cannot be drawn.
    """
    if plot is not None:
        _check_plot(plot)
    runs = [simulate(count, points, joins, leaves, Random(seed)) for count in agents]
    _report(runs)
    if plot is not None:
        from gateway.cli.ring_plot import draw

        try:
            draw(plot, runs[-1])
        except OSError as error:
            typer.echo(f"{plot}: {error.strerror or error}", err=True)
            raise typer.Exit(2) from None


def _report(runs: list[Run]) -> None:
    table = _table(
        "agents",
        "points",
        "keys: max/mean",
        "CV",
        "moved/ideal",
        "among survivors",
        "overhead",
        "load: max/mean, ring alone",
        "bounded",
        "σ, ring alone",
        "bounded",
        "at owner",
    )
    for run in runs:
        table.add_row(
            f"{run.agents:,}",
            f"{run.points:,}",
            f"{run.keys.highest:.3f}",
            f"{run.keys.variation:.3f}",
            f"{run.moved_to_ideal:.3f}" if run.steps else "–",
            f"{max((step.between_survivors for step in run.steps), default=0.0):.2%}",
            f"{max((step.overhead for step in run.steps), default=1.0):.3f} ×",
            f"{run.alone.spread.highest:.2f}",
            f"{run.bounded.spread.highest:.2f}",
            f"{run.alone.spread.deviation * run.packets:.2f}",
            f"{run.bounded.spread.deviation * run.packets:.2f}",
            f"{run.bounded.at_owner:.1%}",
        )
    _console().print(table)
    typer.echo(f"load: {PACKETS_PER_AGENT} packets under way for each agent; σ in packets")


def _check_plot(path: Path) -> None:
    if path.suffix not in (".svg", ".png"):
        typer.echo(f"{path}: expected a name that ends in .svg or .png", err=True)
        raise typer.Exit(2)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        typer.echo("--plot needs matplotlib: pip install 'phoenixflight-gateway[plot]'", err=True)
        raise typer.Exit(2) from None


def _members(path: Path) -> tuple[Agent, ...]:
    try:
        return load_agents(read_text(path), str(path))
    except DocumentError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _configuration(config: Path) -> GatewaySpec:
    try:
        return load_config(config)
    except DocumentError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _running(admin: str) -> tuple[Agent, ...]:
    """The members of the gateway whose admin port is at `admin`, as they are now."""
    try:
        response = httpx.get(f"{admin.rstrip('/')}/snapshot", timeout=_ADMIN_TIMEOUT_S).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        typer.echo(f"{admin}: {error}", err=True)
        raise typer.Exit(2) from None
    return tuple(
        Agent(
            name=told["name"],
            host="",
            port=0,
            capabilities=frozenset(told["capabilities"]),
            trust=told["trust"],
            state=AgentState(told["state"]),
            reliability=told["reliability"],
            zone=told["zone"],
        )
        for told in response.json()["agents"]
    )


def _capabilities(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _ring(members: Iterable[Agent], points: int) -> Ring:
    return Ring((agent for agent in members if agent.state is AgentState.READY), points)


def _sets(members: Iterable[Agent]) -> list[frozenset[str]]:
    whole = {agent.capabilities for agent in members}
    single = {frozenset({name}) for capabilities in whole for name in capabilities}
    return sorted(single | whole, key=lambda names: (len(names), sorted(names)))


def _plans(
    old: tuple[Agent, ...], new: tuple[Agent, ...], sets: list[frozenset[str]], points: int
) -> list[tuple[list[str], Ring, Ring, Plan]]:
    labels: dict[tuple[tuple[Agent, ...], ...], list[str]] = {}
    for wanted in sets:
        key = tuple(tuple(agent for agent in members if wanted <= agent.capabilities) for members in (old, new))
        labels.setdefault(key, []).append(", ".join(sorted(wanted)))
    plans = []
    for (had, has), same in labels.items():
        was, now = _ring(had, points), _ring(has, points)
        plans.append((same, was, now, plan(was, now)))
    return plans


def _document(sets: list[str], was: Ring, now: Ring, change: Plan) -> dict[str, object]:
    return {
        "capabilities": sets,
        "agents": {"before": len(was.agents), "after": len(now.agents)},
        "joined": change.joined,
        "left": change.left,
        "reweighted": change.reweighted,
        "moved": change.moved,
        "between_survivors": change.between_survivors,
        "least": change.least,
        "overhead": change.overhead,
        "moves": [{"from": move.origin, "to": move.target, "share": move.share} for move in change.moves],
    }


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_CHOICES]) + (f" and {len(names) - _CHOICES} more" if len(names) > _CHOICES else "")


def _table(first: str, *others: str) -> Table:
    table = Table()
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, overflow="fold")
    return table


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)
