"""Handing work on in one call, and what the next agent has to know along with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from gateway.agent.arrival import Arrival


_SHOWN = frozenset({"flight-conversation", "flight-credential"})
"""With a context: what it belongs to, and by what right."""


class ContextError(Exception):
    """A context was not stored, or not given; `status` is the gateway's answer, 0 where the bytes are not the ones."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}" if status else detail)
        self.status = status


class Onward:
    """Hands parts of a packet's work on: ``await arrival.onward(client).post("code.review", json=job)``.

    Each packet belongs to the conversation, task and trace of the one that has arrived, has it as its parent, and goes
    with the agent's credential, which the gateway narrows.  Another budget or context goes with it where it is named.
    """

    def __init__(self, arrival: Arrival, client: httpx.AsyncClient) -> None:
        """Hand on what has `arrived` with `client`, which shows the certificate that the packet came to."""
        self._arrival = arrival
        self._client = client

    async def post(
        self,
        capability: str,
        path: str = "/",
        *,
        budget: Mapping[str, int] | None = None,
        context: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """Send a packet and have its answer, be it a refusal.

        Args:
            capability: what the next agent must be able to do; several with commas.
            path: where at that agent.
            budget: what it may spend, by unit; of a unit that is not named, all that is left.
            context: the SHA-256 of what it should know, as `store_context` gives it.
            headers: further header fields.
            more: what `httpx` takes: ``json``, ``content``, ``params`` and so on.

        Raises:
            NoTimeLeftError: the sender of the packet that has arrived waits no longer.
            httpx.TransportError: the gateway was not reached, or did not answer.

        """
        given = self._arrival.headers(capability, budget=budget, context=context)
        return await self._client.post(path, headers={**(headers or {}), **given}, **more)

    def stream(
        self,
        capability: str,
        path: str = "/",
        *,
        budget: Mapping[str, int] | None = None,
        context: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> AbstractAsyncContextManager[httpx.Response]:
        """`post`, with an answer that is read while it comes; to be entered."""
        given = self._arrival.headers(capability, budget=budget, context=context)
        return self._client.stream("POST", path, headers={**(headers or {}), **given}, **more)

    async def store_context(self, content: bytes) -> str:
        """Have the gateway keep `content` for the conversation; its SHA-256, to hand on as `context`.

        Raises:
            ContextError: the gateway does not keep it.
            httpx.TransportError: as with `post`.

        """
        digest = hashlib.sha256(content).hexdigest()
        answer = await self._about("PUT", digest, content)
        if answer.status_code not in (201, 204):
            raise ContextError(answer.status_code, _detail(answer))
        return digest

    async def fetch_context(self, digest: str | None = None) -> bytes:
        """The context whose SHA-256 is `digest`, by default the one that the packet refers to.

        Raises:
            ContextError: there is none, or none for this agent, or it is not the one that was asked for.
            httpx.TransportError: as with `post`.

        """
        wanted = self._arrival.context if digest is None else digest
        if not wanted:
            raise ContextError(0, "the packet refers to no context")
        answer = await self._about("GET", wanted)
        if answer.status_code != 200:
            raise ContextError(answer.status_code, _detail(answer))
        if hashlib.sha256(answer.content).hexdigest() != wanted:
            raise ContextError(0, f"what came is not the context {wanted}")
        return answer.content

    async def _about(self, method: str, digest: str, content: bytes | None = None) -> httpx.Response:
        packet = self._arrival.headers("")
        headers = {name: value for name, value in packet.items() if name in _SHOWN}
        request = self._client.build_request(method, f"/contexts/{digest}", headers=headers, content=content)
        # What the client sends with packets would make one of this, too.
        request.headers.pop("flight-capability", None)
        return await self._client.send(request, auth=httpx.Auth())


def _detail(answer: httpx.Response) -> str:
    """What the gateway says, as far as it is the gateway who answers."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
