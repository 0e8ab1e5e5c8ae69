"""``phoenixflight run``: serve."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gateway.control.config import load_config
from gateway.control.gateway import Gateway
from gateway.control.tls import TlsError
from gateway.documents import DocumentError

GC_THRESHOLD = 50_000
DEFAULT_CONFIG = Path("config/gateway.yaml")
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The Gateway document.")]


def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the gateway until SIGTERM, which drains it.  Exit 2: something in its files is wrong."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            clean = runner.run(_serve(config))
    except (DocumentError, TlsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"cannot start: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if clean else 1)


async def _serve(path: Path) -> bool:
    gateway = Gateway(load_config(path))
    # What is loaded by now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # Requests make few cycles and the values that travel are untracked; collect after many allocations, not 700.
    gc.set_threshold(GC_THRESHOLD)
    return await gateway.run()


def _raise_file_limit() -> None:
    """Allow as many open sockets as the system lets us: the usual soft limit is 1,024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the extra `fast` is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
