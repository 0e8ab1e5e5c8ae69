"""The API as it is served: lists and watches with an API server's manners, and the faults that a test wants."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from tests.kube_api.rbac import Asked, Rights
from tests.kube_api.store import KINDS, GoneError, Object, Store

PATH = re.compile(r"(?:/api/v1|/apis/discovery\.k8s\.io/v1)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)")


class CutError(Exception):
    """Raised towards the server, so that it breaks the connection off."""


@dataclass
class Fault:
    """What goes wrong with one request to come.

    ``do`` is ``status`` (answer `code`), ``slow`` (wait `seconds` first), ``gone`` (an ERROR event of 410) or ``cut``
    (half an event, then the connection breaks).
    """

    do: str
    verb: str = ""
    plural: str = ""
    times: int = 1
    code: int = 500
    retry_after: int | None = None
    seconds: float = 0.0


@dataclass(eq=False)
class Watcher:
    """One open watch."""

    plural: str
    interrupts: list[str] = field(default_factory=list)


class KubeServer:
    """An ASGI application for the API."""

    def __init__(self, store: Store, token: str) -> None:
        self.store = store
        self.tokens = {token}
        self.faults: list[Fault] = []
        self.unserved: set[str] = set()
        self.rights: Rights | None = None
        """What whoever has a token may do; ``None`` lets them do everything."""
        self.bookmark_s = 0.2
        self.requests: list[dict[str, Any]] = []
        self.watchers: set[Watcher] = set()
        self._written = asyncio.Condition()

    async def notify(self) -> None:
        """Wake all watches: something was written, or is to be interrupted."""
        async with self._written:
            self._written.notify_all()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        query = dict(parse_qsl(scope["query_string"].decode()))
        matched = PATH.fullmatch(scope["path"])
        headers = dict(scope["headers"])
        plural = matched["plural"] if matched else ""
        verb = "watch" if query.get("watch") in ("1", "true") else "list"
        bearer = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        namespace = (matched["namespace"] or "") if matched else ""
        seen = {
            "verb": verb, "plural": plural, "namespace": namespace, "query": query, "at": time.monotonic(),
            "http": scope["http_version"],
        }  # fmt: skip
        self.requests.append(seen)
        if bearer not in self.tokens:
            await _refuse(send, 401, "Unauthorized", "Unauthorized")
        elif plural not in KINDS or plural in self.unserved:
            await _refuse(send, 404, "NotFound", "the server could not find the requested resource")
        elif self.rights is not None and not self.rights.allow(asked := Asked(verb, plural, namespace)):
            await _refuse(send, 403, "Forbidden", self.rights.refusal(asked))
        elif "sendInitialEvents" in query:
            await _refuse(send, 422, "Invalid", "sendInitialEvents is forbidden for watch by this server")
        else:
            await self._answer(send, receive, verb, plural, namespace, query)

    async def _answer(
        self, send: Any, receive: Any, verb: str, plural: str, namespace: str, query: dict[str, str]
    ) -> None:
        fault = self._fault(verb, plural)
        if fault is not None and fault.do == "slow":
            await asyncio.sleep(fault.seconds)
        elif fault is not None and fault.do == "status":
            reason = {410: "Expired", 429: "TooManyRequests", 403: "Forbidden"}.get(fault.code, "InternalError")
            await _refuse(send, fault.code, reason, "as the test wants it", fault.retry_after)
            return
        if verb == "list":
            await self._list(send, plural, namespace, query)
            return
        watcher = Watcher(plural, [fault.do] if fault is not None and fault.do in ("gone", "cut") else [])
        self.watchers.add(watcher)
        left = asyncio.create_task(_left(receive))
        watching = asyncio.create_task(self._watch(send, watcher, namespace, query))
        try:
            await asyncio.wait({left, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
        finally:
            self.watchers.discard(watcher)
            left.cancel()
            watching.cancel()
            await asyncio.gather(left, watching, return_exceptions=True)

    def _fault(self, verb: str, plural: str) -> Fault | None:
        for fault in self.faults:
            if fault.verb in ("", verb) and fault.plural in ("", plural):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    async def _list(self, send: Any, plural: str, namespace: str, query: dict[str, str]) -> None:
        limit, token = int(query.get("limit", 0)), query.get("continue", "")
        try:
            version, items, more = self.store.page(plural, namespace, query.get("labelSelector", ""), limit, token)
        except GoneError:
            await _refuse(send, 410, "Expired", "The provided continue parameter is too old")
            return
        api_version, kind = KINDS[plural]
        metadata = {"resourceVersion": str(version), **({"continue": more} if more else {})}
        # Items of a list do not say what they are.
        bare = [{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in items]
        await _answer(
            send, 200, {"kind": f"{kind}List", "apiVersion": api_version, "metadata": metadata, "items": bare}
        )

    async def _watch(self, send: Any, watcher: Watcher, namespace: str, query: dict[str, str]) -> None:
        store, plural, selector = self.store, watcher.plural, query.get("labelSelector", "")
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # The head goes out at once, as with a real server.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        version = int(query.get("resourceVersion") or 0)
        ends = time.monotonic() + float(query.get("timeoutSeconds", 1800))
        bookmarks = query.get("allowWatchBookmarks") == "true"
        next_bookmark = time.monotonic() + self.bookmark_s
        while True:
            try:
                now, events = store.since(version, plural, namespace, selector)
            except GoneError:
                await _send_event(send, "ERROR", _gone(version, store.forgotten))
                break
            cut = "cut" in watcher.interrupts
            for type_, found in events:
                await _send_event(send, type_, found, cut=cut)
            version = now
            if await self._interrupt(send, watcher, version):
                break
            if time.monotonic() >= min(next_bookmark, ends) and bookmarks:
                await _send_event(send, "BOOKMARK", _bookmark(plural, version))
                next_bookmark = time.monotonic() + self.bookmark_s
            if time.monotonic() >= ends:
                break
            await self._more(version, watcher, min(next_bookmark, ends) if bookmarks else ends)
        await send({"type": "http.response.body", "body": b""})

    async def _interrupt(self, send: Any, watcher: Watcher, version: int) -> bool:
        """Do what the test wants in the middle of a watch; whether the watch ends with it."""
        while watcher.interrupts:
            what = watcher.interrupts.pop(0)
            if what == "gone":
                await _send_event(send, "ERROR", _gone(version, version + 1))
                return True
            if what == "end":
                return True
            if what == "stale-bookmark":
                await _send_event(send, "BOOKMARK", _bookmark(watcher.plural, 1))
            else:
                await _send_event(send, "BOOKMARK", _bookmark(watcher.plural, version), cut=True)
        return False

    async def _more(self, version: int, watcher: Watcher, until: float) -> None:
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0)), self._written:
                await self._written.wait_for(lambda: self.store.version > version or watcher.interrupts)
        except TimeoutError:
            pass


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_event(send: Any, type_: str, found: Object, *, cut: bool = False) -> None:
    line = json.dumps({"type": type_, "object": found}).encode() + b"\n"
    await send({"type": "http.response.body", "body": line[: len(line) // 2] if cut else line, "more_body": True})
    if cut:
        raise CutError


def _gone(version: int, oldest: int) -> Object:
    return _status(410, "Expired", f"too old resource version: {version} ({oldest})")


def _bookmark(plural: str, version: int) -> Object:
    api_version, kind = KINDS[plural]
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    rest: Object = {"addressType": "", "endpoints": None, "ports": None} if plural == "endpointslices" else {}
    if plural == "services":
        rest = {"spec": {}, "status": {"loadBalancer": {}}}
    return {"kind": kind, "apiVersion": api_version, "metadata": metadata, **rest}


def _status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }  # fmt: skip


async def _refuse(send: Any, code: int, reason: str, message: str, retry_after: int | None = None) -> None:
    headers = [] if retry_after is None else [(b"retry-after", str(retry_after).encode())]
    await _answer(send, code, _status(code, reason, message), headers)


async def _answer(send: Any, code: int, body: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    sent = json.dumps(body).encode()
    found = [(b"content-type", b"application/json"), (b"content-length", str(len(sent)).encode()), *(headers or ())]
    await send({"type": "http.response.start", "status": code, "headers": found})
    await send({"type": "http.response.body", "body": sent})
