"""The approval webhook: told of each packet that begins to wait, and heard if it answers at once."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from pathlib import Path

import httpx

from gateway.approvals import Desk, Standing, Waiting, WebhookSpec
from gateway.approvals.webhook import MAX_ANSWER_BYTES, Call, read_answer, read_secret, request

log = logging.getLogger(__name__)

MAX_UNDER_WAY = 1000
"""Requests; beyond it what begins to wait is told to nobody, which counts as a failure."""


class Webhook:
    """Asks it; owns the tasks that do.  Whatever goes wrong, nothing is approved by it."""

    def __init__(self, spec: WebhookSpec, desk: Desk) -> None:
        """Nothing is asked yet.

        Args:
            spec: where, and with which secret.
            desk: hears its answers.

        Raises:
            OSError: a file cannot be read.
            ValueError: there is no usable secret, or no CA, in it.

        """
        self._spec = spec
        self._desk = desk
        read_secret_file(spec.secret_file)
        context = ssl.create_default_context(cafile=spec.ca_file)
        self._client = httpx.AsyncClient(timeout=spec.timeout_s, verify=context, trust_env=False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._instance = socket.gethostname()
        self.counts = dict.fromkeys(Call, 0)

    def tell(self, waiting: Waiting) -> None:
        """Have it told of `waiting`, soon."""
        if len(self._tasks) >= MAX_UNDER_WAY:
            self._failed(waiting, "too many requests to it are under way")
            return
        task = asyncio.get_running_loop().create_task(self._call(waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _call(self, waiting: Waiting) -> None:
        try:
            async with asyncio.timeout(self._spec.timeout_s):
                decision = read_answer(*await self._post(waiting))
        except TimeoutError:
            self._failed(waiting, f"it has not answered within {self._spec.timeout_s:g} s")
            return
        except (OSError, ValueError, httpx.HTTPError) as error:
            self._failed(waiting, str(error) or type(error).__name__)
            return
        if decision is None:
            self.counts[Call.TAKEN] += 1
            return
        standing = self._desk.decide(waiting.id, decision, time.time())
        if standing in (Standing.DONE, Standing.UNKNOWN):  # somebody else may have been faster
            self.counts[Call.ANSWERED] += 1
        else:
            self._failed(waiting, f"its answer does not count: {standing.value}")

    async def _post(self, waiting: Waiting) -> tuple[int, bytes]:
        secret = await asyncio.to_thread(read_secret_file, self._spec.secret_file)  # so that it can be replaced
        body, headers = request(waiting, self._instance, secret, time.time())
        async with self._client.stream("POST", self._spec.url, content=body, headers=headers) as answer:
            received = b""
            async for piece in answer.aiter_bytes():
                received += piece
                if len(received) > MAX_ANSWER_BYTES:
                    raise ValueError(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        return answer.status_code, received

    def _failed(self, waiting: Waiting, why: str) -> None:
        self.counts[Call.FAILED] += 1
        log.warning("the approval webhook was not asked about %s: %s", waiting.id, why)


def read_secret_file(path: Path) -> bytes:
    """The secret in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no usable secret in it.

    """
    return read_secret(path.read_text(encoding="ascii"))
