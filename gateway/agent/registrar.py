"""Being a member: an agent registers itself, stays registered while it runs, and retires when it ends."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx

REQUEST_TIMEOUT_S = 5.0
FIRST_RETRY_S = 0.2
POLL_S = 0.25
"""How often it is asked whether the drain is over."""
_NEVER_AGAIN = frozenset({400, 401, 403, 404, 405, 409, 413})
"""What the gateway answers to a registration that it would not take the next time either."""

log = logging.getLogger(__name__)


class RegistrationRefusedError(Exception):
    """The gateway does not take the registration; the message is the gateway's."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


class Registrar:
    """Registers an agent while it runs: ``async with Registrar(client, "coder-1", "10.0.0.7:8443", agent_card=True)``.

    It renews the lease at a third of it.  When the gateway is away it tries until it is back, and a gateway that has
    forgotten the agent hears of it again.  On leaving it retires, and waits until packets come no more.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        name: str,
        address: str,
        *,
        capabilities: Iterable[str] = (),
        agent_card: bool = False,
        trust: float | None = None,
        labels: Mapping[str, str] | None = None,
        protocol: str = "http/1.1",
        zone: str = "",
        context_path: str = "",
        lease_s: float = 30.0,
        drain_s: float = 10.0,
        entropy: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is sent yet.

        Args:
            client: has the gateway as its ``base_url`` and shows the agent's certificate; it stays its maker's.
            name: the member's name, which belongs to the certificate's SPIFFE id while the agent is registered.
            address: ``host:port`` where the agent serves TLS with that certificate.
            capabilities: what it can do.
            agent_card: whether the gateway is to read its A2A agent card for more.
            trust: at most what a policy allows, which is what ``None`` asks for.
            labels: those that a policy allows.
            protocol: ``http/1.1`` or ``h2``.
            zone: where it runs.
            context_path: where it gives and takes the context of a conversation that moves, if it does.
            lease_s: how long the gateway keeps it without hearing from it; a policy may allow less.
            drain_s: how long, on leaving, it stays for what is under way.
            entropy: a number from 0 to 1, so that many agents do not renew in the same moment.

        """
        self.trouble = ""
        """Why the last attempt to renew failed; empty when it did not."""
        self._client = client
        self._path = f"/members/{name}"
        self._body: dict[str, Any] = {
            "address": address,
            "capabilities": list(capabilities),
            "agentCard": agent_card,
            "labels": dict(labels or {}),
            "protocol": protocol,
            "zone": zone,
            "lease": _duration(lease_s),
        }
        if context_path:
            self._body["contextPath"] = context_path
        if trust is not None:
            self._body["trust"] = trust
        self._drain_s = drain_s
        self._entropy = entropy
        self._renew_s = lease_s / 3
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Register; waits for a gateway that is away.

        Raises:
            RegistrationRefusedError: the gateway is there, and refuses.

        """
        await self._register(for_good=False)
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        try:
            await self._retire()
        except (httpx.HTTPError, TimeoutError) as error:
            log.warning("%s: not retired, the lease will end: %s", self._path, _words(error))

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """As an ASGI application's lifespan: ``Starlette(routes, lifespan=registrar.lifespan)``."""
        async with self:
            yield

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._renew_s * (1 - self._entropy() / 5))
            await self._register(for_good=True)

    async def _register(self, *, for_good: bool) -> None:
        """Register or renew, however often that takes; `for_good` even when the gateway refuses."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self._put()
            except RegistrationRefusedError as error:
                if error.status in _NEVER_AGAIN and not for_good:
                    raise
                trouble = str(error)
            except httpx.HTTPError as error:
                trouble = _words(error)
            else:
                if self.trouble:
                    log.info("%s: registered again", self._path)
                self.trouble = ""
                return
            if trouble != self.trouble:
                log.warning("%s: not registered, trying again: %s", self._path, trouble)
            self.trouble = trouble
            await asyncio.sleep(retry_s * (1 - self._entropy() / 2))
            retry_s = min(retry_s * 2, max(self._renew_s, FIRST_RETRY_S))

    async def _put(self) -> None:
        response = await self._send("PUT", self._path, json=self._body)
        if response.status_code not in (200, 201):
            raise RegistrationRefusedError(response.status_code, _detail(response))
        try:
            self._renew_s = max(float(response.json()["renewSeconds"]), FIRST_RETRY_S)
        except (ValueError, KeyError, TypeError):
            raise RegistrationRefusedError(response.status_code, "this is no answer of a gateway") from None

    async def _retire(self) -> None:
        response = await self._send("DELETE", self._path, params={"drain": _duration(self._drain_s)})
        if response.status_code != 202:
            return  # it is gone, or never was
        # However long the drain: a gateway that has nothing to wait for may end it early.
        with_grace_s = self._drain_s + 2 * POLL_S
        async with asyncio.timeout(with_grace_s):
            while response.status_code != 404:
                await asyncio.sleep(min(POLL_S, self._drain_s))
                response = await self._send("GET", self._path)

    async def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        request = self._client.build_request(method, path, timeout=REQUEST_TIMEOUT_S, **more)
        # What the client sends with packets would make one of this, too.
        request.headers.pop("flight-capability", None)
        return await self._client.send(request, auth=httpx.Auth())


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _detail(response: httpx.Response) -> str:
    """What the gateway says, as far as it is the gateway who answers."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
