"""``phoenixflight demo``: real agents that hand work to each other through the gateway, on this machine."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console

_PEERS = ("a2a", "mcp", "uvicorn", "websockets")
"""Modules of the extra `demo`."""


def demo(
    stay: Annotated[bool, typer.Option("--stay", help="Leave it running, and say how to try it by hand.")] = False,
) -> None:
    """Watch real agents hand work to each other through the gateway over mTLS.  Exit 1: it did not go well."""
    missing = [name for name in _PEERS if find_spec(name) is None]
    if missing:
        typer.echo(f"the demo's agents need {', '.join(missing)}: pip install 'phoenixflight-gateway[demo]'", err=True)
        raise typer.Exit(2)
    # Not at the top: it needs the extra.
    from gateway.demo.scenario import ScenarioFailedError, play

    console = Console(highlight=False)
    try:
        asyncio.run(play(console, stay=stay))
    except ScenarioFailedError as error:
        typer.echo(f"the demo failed: {error}", err=True)
        raise typer.Exit(1) from None
    except asyncio.CancelledError:
        raise typer.Exit(0 if stay else 130) from None
