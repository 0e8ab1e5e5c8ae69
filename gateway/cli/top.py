"""``phoenixflight top``: what happens at a running gateway, live."""

from __future__ import annotations

import time
from typing import Annotated

import httpx
import msgspec
import typer
from rich.console import Console
from rich.live import Live

from gateway.admin.events import State
from gateway.admin.members import Members
from gateway.admin.stream import Handoffs
from gateway.cli.admin import (
    DEFAULT_ADMIN,
    AdminOption,
    CaOption,
    CertOption,
    KeyOption,
    TokenOption,
    asked,
    connected,
    events,
)
from gateway.cli.frame import Frame
from gateway.handoff import Handoff

AGAIN_S = 1.0
"""How long until a gateway that does not answer is asked again."""
MEMBERS_EVERY = 2
"""States between two looks at the members."""
KEPT = 1_000
WIDTH = 160
"""Of a frame that goes to no terminal."""


def top(
    admin: AdminOption = DEFAULT_ADMIN,
    token_file: TokenOption = None,
    cacert: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame, and end.")] = False,
) -> None:
    """Show rates, agents, capabilities and the latest refusals, live; Ctrl-C ends it.

    The tables are of the last minute.  Exit 1: with --once, the gateway does not answer.  2: a mistake.
    """
    client = connected(admin, token_file, cacert, cert, key)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    with client:
        if once:
            _once(client, admin, console)
        else:
            _live(client, admin, console)


def _once(client: httpx.Client, admin: str, console: Console) -> None:
    try:
        frame = _begun(client, admin)
        name, data = next(events(client, "/live"))
    except httpx.HTTPError as error:
        typer.echo(f"{admin}: {error}", err=True)
        raise typer.Exit(1) from None
    _take(frame, name, data)
    console.print(frame.render())


def _live(client: httpx.Client, admin: str, console: Console) -> None:
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as shown:
        while True:
            try:
                _follow(client, admin, shown)
            except httpx.HTTPError as error:
                shown.update(f"{admin}: {error}; asking again", refresh=True)
            except KeyboardInterrupt:
                return
            try:
                time.sleep(AGAIN_S)
            except KeyboardInterrupt:
                return


def _follow(client: httpx.Client, admin: str, shown: Live) -> None:
    """Show what happens, until the stream ends."""
    frame = _begun(client, admin)
    states = 0
    for name, data in events(client, "/live"):
        _take(frame, name, data)
        if name == "state":
            states += 1
            if states % MEMBERS_EVERY == 0:
                frame.members = msgspec.convert(asked(client, "/members"), Members).members
            shown.update(frame.render(), refresh=True)


def _begun(client: httpx.Client, admin: str) -> Frame:
    """A frame with what is in the gateway's memory."""
    frame = Frame(admin)
    frame.members = msgspec.convert(asked(client, "/members"), Members).members
    for handoff in reversed(msgspec.convert(asked(client, f"/handoffs?limit={KEPT}"), Handoffs).handoffs):
        frame.add(handoff)
    return frame


def _take(frame: Frame, name: str, data: bytes) -> None:
    if name == "state":
        frame.state = msgspec.json.decode(data, type=State)
    else:
        frame.add(msgspec.json.decode(data, type=Handoff))
