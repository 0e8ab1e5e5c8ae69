"""``phoenixflight contexts``: keys for the store of contexts, and what has to go from it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gateway.contexts import KeyFileError, StoreError, new_key
from gateway.contexts.opening import opened
from gateway.control.config import load_config
from gateway.documents import DocumentError

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.command("new-key")
def make_key(file: Annotated[Path, typer.Argument(help="The file to write, which must not be there.")]) -> None:
    """Make a key file for contexts.keys, that only its owner may read.  Exit 2: it cannot be written."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as opened_:
            opened_.write(new_key())
    except OSError as error:
        _stop(f"{file}: {error.strerror or error}")
    typer.echo(f"wrote {file}; without it nothing that it has encrypted can be read")


@app.command()
def erase(
    conversation: Annotated[str, typer.Option(help="What has to go.")],
    config: Annotated[Path, typer.Option(help="The gateway's own configuration.")] = Path("config/gateway.yaml"),
) -> None:
    """Erase all contexts of a conversation, whether a gateway runs or not.  Exit 2: it cannot be done."""
    try:
        spec = load_config(config)
        if spec.contexts is None:
            _stop(f"{config}: the gateway keeps no contexts: spec.contexts is not set")
        contexts = opened(spec.contexts, spec.redis.url if spec.redis is not None else "")
    except (DocumentError, KeyFileError, ImportError) as error:
        _stop(str(error))

    async def erased() -> int:
        try:
            return await contexts.erase(conversation)
        finally:
            await contexts.close()

    try:
        count = asyncio.run(erased())
    except StoreError as error:
        _stop(f"not all may be erased: {error}")
    typer.echo(f"{count} contexts erased")


def _stop(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
