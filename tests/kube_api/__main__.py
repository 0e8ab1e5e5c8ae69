"""``python -m tests.kube_api --port N --control-port N --cert FILE --key FILE --token TEXT``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config

from tests.kube_api.control import Control
from tests.kube_api.serve import KubeServer
from tests.kube_api.store import Store


def _config(port: int) -> Config:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = 0.05
    config.shutdown_timeout = 0.05
    config.loglevel = "CRITICAL"
    return config


class Switch:
    """The API's listener, which can go down and come up while the objects stay."""

    def __init__(self, api: Any, arguments: argparse.Namespace) -> None:
        self._api = api
        self._arguments = arguments
        self._down = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, up: bool) -> None:
        if up and self._serving is None:
            self._down.clear()
            config = _config(self._arguments.port)
            config.certfile, config.keyfile = self._arguments.cert, self._arguments.key
            self._serving = asyncio.create_task(serve(self._api, config, shutdown_trigger=self._down.wait))
        elif not up and self._serving is not None:
            self._down.set()
            await asyncio.wait({self._serving})
            self._serving = None


async def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.kube_api")
    for name, type_ in (("port", int), ("control-port", int), ("cert", str), ("key", str), ("token", str)):
        parser.add_argument(f"--{name}", type=type_, required=True)
    parser.add_argument("--kept", type=int, default=10_000, help="writes that can be watched from")
    arguments = parser.parse_args()
    # Connections that break off are what this server is for.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    api = KubeServer(Store(arguments.kept), arguments.token)
    switch = Switch(api, arguments)
    await switch(True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await serve(Control(api, switch), _config(arguments.control_port), shutdown_trigger=stop.wait)
    await switch(False)


asyncio.run(main())
