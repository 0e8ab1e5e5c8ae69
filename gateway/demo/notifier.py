"""Takes progress messages over a WebSocket and acknowledges each.  Capability: ``notify.progress``."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import suppress

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

from gateway.demo.peer import Settings


async def acknowledge(websocket: ServerConnection) -> None:
    """Answer each message of a connection with its number and text, until the caller closes."""
    number = 0
    with suppress(ConnectionClosedError):  # a caller that broke off waits for no acknowledgement
        async for message in websocket:
            number += 1
            await websocket.send(json.dumps({"acknowledged": number, "text": json.loads(message)["text"]}))


async def main(settings: Settings) -> None:
    """Serve until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve(acknowledge, settings.host, settings.port, close_timeout=1):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(Settings.from_environment()))
