"""What tests tell the server: objects to write, faults to make, flaps to run."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.kube_api.rbac import Rights
from tests.kube_api.serve import Fault, KubeServer
from tests.kube_api.store import KINDS, Object

STATES = (
    {"ready": True, "serving": True, "terminating": False},
    {"ready": False, "serving": False, "terminating": False},
    {"ready": False, "serving": True, "terminating": True},
)


class Control:
    """An ASGI application: POST ``{"do": NAME, ...}``, one answer in JSON."""

    def __init__(self, api: KubeServer, switch: Callable[[bool], Awaitable[None]]) -> None:
        self._api = api
        self._switch = switch
        self._truth: list[dict[str, Any]] = []
        self._flapping: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        asked = json.loads(body)
        answer = await getattr(self, f"_do_{asked.pop('do').replace('-', '_')}")(**asked)
        sent = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(sent)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": sent})

    async def _do_put(self, plural: str, objects: list[Object]) -> int:
        for each in objects:
            self._api.store.put(plural, each)
        await self._api.notify()
        return self._api.store.version

    async def _do_delete(self, plural: str, namespace: str, name: str) -> int:
        version = self._api.store.delete(plural, namespace, name)
        await self._api.notify()
        return version

    async def _do_all(self, plural: str) -> list[Object]:
        return self._api.store.all(plural)

    async def _do_reset(self, token: str) -> None:
        """Nothing is there, nothing goes wrong, and nothing was asked; `token` is good again."""
        await self._switch(True)
        for plural in KINDS:
            for each in self._api.store.all(plural):
                self._api.store.delete(plural, each["metadata"]["namespace"], each["metadata"]["name"])
        self._api.tokens = {token}
        self._api.faults.clear()
        self._api.unserved.clear()
        self._api.rights = None
        self._api.requests.clear()

    async def _do_compact(self) -> None:
        self._api.store.compact()

    async def _do_fault(self, fault: str, **more: Any) -> None:
        self._api.faults.append(Fault(fault, **more))

    async def _do_interrupt(self, how: str, plural: str = "") -> int:
        found = [each for each in self._api.watchers if plural in ("", each.plural)]
        for watcher in found:
            watcher.interrupts.append(how)
        await self._api.notify()
        return len(found)

    async def _do_serve(self, plural: str, served: bool) -> None:
        self._api.unserved ^= {plural} if (plural in self._api.unserved) == served else set()

    async def _do_tokens(self, tokens: list[str]) -> None:
        self._api.tokens = set(tokens)

    async def _do_grant(self, account: str, objects: list[Object]) -> None:
        """Whoever has a token is this service account, ``namespace/name``, with the roles among `objects` alone."""
        self._api.rights = Rights.of(account, objects)

    async def _do_bookmarks(self, seconds: float) -> None:
        self._api.bookmark_s = seconds

    async def _do_up(self) -> None:
        await self._switch(True)

    async def _do_down(self) -> None:
        await self._switch(False)

    async def _do_requests(self) -> list[dict[str, Any]]:
        return self._api.requests

    async def _do_watchers(self) -> list[str]:
        return sorted(each.plural for each in self._api.watchers)

    async def _do_flap(self, count: int, interval_s: float, seed: int) -> None:
        """Begin to write `count` times another state of one endpoint, chosen by `seed`."""
        self._truth = []
        self._flapping = asyncio.create_task(self._flap(count, interval_s, random.Random(seed)))

    async def _flap(self, count: int, interval_s: float, chance: random.Random) -> None:
        store, began = self._api.store, time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(began + number * interval_s - time.monotonic(), 0))
            slices = sorted(store.all("endpointslices"), key=lambda each: each["metadata"]["name"])
            metadata = chance.choice([each for each in slices if each["endpoints"]])["metadata"]
            changed = store.get("endpointslices", metadata["namespace"], metadata["name"])
            endpoint = chance.choice(changed["endpoints"])
            endpoint["conditions"] = chance.choice([each for each in STATES if each != endpoint.get("conditions")])
            version = store.put("endpointslices", changed)
            self._truth.append(
                {
                    "at": time.monotonic(),
                    "version": version,
                    "slice": f"{metadata['namespace']}/{metadata['name']}",
                    "target": (endpoint.get("targetRef") or {}).get("name"),
                    "address": endpoint["addresses"][0],
                    "conditions": endpoint["conditions"],
                }
            )
            await self._api.notify()

    async def _do_truth(self) -> dict[str, Any]:
        """The flaps so far, with their times by the monotonic clock of this machine, and whether there are more."""
        return {"done": self._flapping is None or self._flapping.done(), "flaps": self._truth}
