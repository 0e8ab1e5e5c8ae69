"""Requests are read to their end before they are answered, whether anybody wants to know their bodies or not.

Hypercorn closes a connection whose request was answered unread, without a word of it in the answer; its caller may just
have sent the next one.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BYTES = 65_536
"""What is longer costs its connection."""
WAIT_S = 1.0
_BODILESS = frozenset({"GET", "HEAD"})
"""Whose answers may be streams, beside which the application listens for its caller's end."""


class Whole:
    """An application that leaves nothing unread."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _BODILESS:
            await self._app(scope, receive, send)
            return
        ended = False

        async def read() -> Message:
            nonlocal ended
            message = await receive()
            ended = not message.get("more_body")
            return message

        async def read_to_the_end() -> None:
            left = MAX_BYTES
            while not ended and left > 0:
                left -= len((await read()).get("body", b""))

        async def answer(message: Message) -> None:
            if not ended and message["type"] == "http.response.start":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(read_to_the_end(), WAIT_S)
            await send(message)

        await self._app(scope, read, answer)
