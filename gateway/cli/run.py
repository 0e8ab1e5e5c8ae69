"""``phoenixflight run``: serve."""

from __future__ import annotations

import asyncio
import ctypes
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
from gateway.control.supervisor import Supervisor
from gateway.control.tls import TlsError
from gateway.control.worker import Inherited
from gateway.documents import DocumentError

GC_THRESHOLD = 50_000
LARGE_BYTES = 4 * 1024 * 1024
"""Buffers of this size are the system's; smaller ones are malloc's own, and used again."""
KEPT_BYTES = 16 * 1024 * 1024
"""So much may lie free before malloc gives some back."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
DEFAULT_CONFIG = Path("config/gateway.yaml")
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The Gateway document.")]


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    worker: Annotated[str | None, typer.Option(hidden=True, help="What a supervisor gives its workers.")] = None,
) -> None:
    """Run the gateway until SIGTERM, which drains it; a second one ends it at once.

    Exit 0: nothing was cut off.  1: something was, or it could not start.  2: something in its files is wrong.
    """
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    if worker is not None:
        form = f"[%(process)d] {form}"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=form)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    _raise_file_limit()
    _keep_freed_memory()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(_serve(config, Inherited.read(worker) if worker is not None else None))
    except (DocumentError, TlsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"cannot start: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(code)


async def _serve(path: Path, inherited: Inherited | None) -> int:
    config = load_config(path)
    if config.workers > 1 and inherited is None:
        return await Supervisor(path, config).run()
    gateway = Gateway(path, config, inherited)
    # What is loaded by now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # Requests make few cycles and the values that travel are untracked; collect after many allocations, not 700.
    gc.set_threshold(GC_THRESHOLD)
    return 0 if await gateway.run() else 1


def _keep_freed_memory() -> None:
    """Have malloc keep what is freed of buffers: by default it gives each large one back to the system, page by page.

    The next one is then zeroed and mapped anew, which is two fifths of what a long body costs.  See mallopt(3); it is
    the GNU C library's own, and without it things stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


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
