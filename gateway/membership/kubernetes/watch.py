"""One list, then what changes: for as long as the gateway runs, through every trouble."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, Protocol

from gateway.membership.kubernetes.api import OPENED, Api, ApiTrouble, Event, Kind
from gateway.membership.kubernetes.objects import Key, Object

FIRST_RETRY_S: Final = 0.1
MAX_RETRY_S: Final = 10.0
WATCH_S: Final = 120
"""A watch lasts this at most, and half of it at least; so a connection that died silently is noticed, too."""
SHORT_S: Final = 1.0
"""A watch that ends sooner is taken for a failure."""
MAX_FAILURES: Final = 3
"""After so many answers in a row that refuse to watch, all is listed again."""

log = logging.getLogger(__name__)


class State(Enum):
    """What a watch is doing."""

    LISTING = "listing"
    WATCHING = "watching"
    BACKING_OFF = "backing off"


class Sink(Protocol):
    """Where objects go."""

    def replace(self, namespace: str, kind: Kind[Any], objects: Sequence[Object], unread: Mapping[Key, str]) -> None:
        """These are all there are in `namespace`; in all namespaces if it is empty."""

    def apply(self, kind: Kind[Any], event: Event) -> None:
        """One was added, modified or deleted."""


class Watch:
    """Tells a sink what there is of a kind in a namespace, or in all."""

    def __init__(
        self,
        api: Api,
        kinds: Sequence[Kind[Any]],
        namespace: str,
        sink: Sink,
        *,
        clock: Callable[[], float] = time.monotonic,
        entropy: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Nothing is asked yet.

        Args:
            api: a client for this watch alone.
            kinds: the first of them that is served is what is watched.
            namespace: empty for all.
            sink: told on the event loop.
            clock: seconds; only differences count.
            entropy: a number from 0 to 1.
            sleep: waits so many seconds.

        """
        self.state = State.LISTING
        self.listed = False
        """Whether all was listed at least once."""
        self.lacking = ""
        """The right without which it cannot begin, by verb and resource; empty when none is known to be missing."""
        self._api = api
        self._kinds = kinds
        self._kind = kinds[0]
        self._namespace = namespace
        self._sink = sink
        self._clock = clock
        self._entropy = entropy
        self._sleep = sleep
        self._version = ""
        """To watch from; empty before a list."""
        self._failures = 0
        """In a row, without a word of what happened between them; a list alone does not count as one."""
        self._heard = clock()
        self._error = ""
        self._opened = False
        """Whether the server ever agreed to a watch."""

    async def run(self) -> None:
        """List and watch until cancelled."""
        try:
            while True:
                try:
                    if not self._version:
                        await self._list()
                    await self._watch()
                except ApiTrouble as trouble:
                    await self._recover(trouble)
        finally:
            await self._api.close()

    async def _list(self) -> None:
        self.state = State.LISTING
        for kind in self._kinds:
            self._kind = kind
            try:
                version, objects, unread = await self._pages(kind)
            except ApiTrouble as trouble:
                # Fall back only where the kind itself is unknown to the server, and there is another.
                if trouble.status != 404 or kind is self._kinds[-1]:
                    raise
            else:
                break
        self._version = version
        self.listed = True
        self._sink.replace(self._namespace, kind, objects, unread)
        self._heard_something()

    async def _pages(self, kind: Kind[Any]) -> tuple[str, list[Object], dict[Key, str]]:
        objects: list[Object] = []
        unread: dict[Key, str] = {}
        more = ""
        while True:
            try:
                page = await self._api.page(kind, self._namespace, more)
            except TimeoutError:
                raise ApiTrouble(f"a list of {kind.plural} took too long") from None
            objects += page.objects
            unread.update(page.unread)
            more = page.more
            if not more:
                return page.version, objects, unread

    async def _watch(self) -> None:
        began = self._clock()
        duration_s = round(WATCH_S * (1 + self._entropy()) / 2)
        async with aclosing(self._api.watch(self._kind, self._namespace, self._version, duration_s)) as events:
            async for event in events:
                if event.type == OPENED:
                    self.state = State.WATCHING
                    self._opened = True
                    self.lacking = ""
                    continue
                self._failures = 0
                if event.type != "BOOKMARK":
                    self._sink.apply(self._kind, event)
                    self._version = event.metadata.resource_version
                elif not _older(event.metadata.resource_version, self._version):
                    self._version = event.metadata.resource_version
                self._heard_something()
        if self._kind is not self._kinds[0]:
            # Perhaps the better kind is served by now.
            self._version = ""
        if self._clock() - began < SHORT_S:
            raise ApiTrouble("the API server ended the watch at once")
        self._failures = 0

    def _heard_something(self) -> None:
        self._heard = self._clock()
        if self._error and not self.lacking:
            log.info("kubernetes %s: well again", self)
            self._error = ""

    async def _recover(self, trouble: ApiTrouble) -> None:
        self.state = State.BACKING_OFF
        if trouble.status == HTTPStatus.FORBIDDEN:
            trouble = self._forbidden(trouble)
        if str(trouble) != self._error:
            log.warning("kubernetes %s: %s", self, trouble)
        self._error = str(trouble)
        self._failures += 1
        if trouble.status == 410 or (trouble.status and self._failures >= MAX_FAILURES):
            self._version = ""
        if not trouble.status or trouble.status == 401:
            # Addresses, roots and tokens may be others by now.
            await self._api.close()
        await self._sleep(trouble.retry_after_s + pause_s(self._failures, self._entropy()))

    def _forbidden(self, trouble: ApiTrouble) -> ApiTrouble:
        """The same trouble, with the right that is missing."""
        verb = "watch" if self._version else "list"
        right = f"may not {verb} {self._kind.named} in {self._namespace or 'all namespaces'}"
        if not self._opened:
            self.lacking = right
        return ApiTrouble(f"{right}: {trouble}", status=trouble.status, retry_after_s=trouble.retry_after_s)

    def __str__(self) -> str:
        return f"{self._kind.plural} in {self._namespace or 'all namespaces'}"

    def status(self) -> dict[str, object]:
        """How it is, as JSON values."""
        return {
            "kind": self._kind.plural,
            "namespace": self._namespace or None,
            "state": self.state.value,
            "listed": self.listed,
            "ageSeconds": round(self._clock() - self._heard, 3),
            "lastError": self._error or None,
            "failures": self._failures,
            "resourceVersion": self._version or None,
        }


def pause_s(failures: int, entropy: float) -> float:
    """How long to wait after so many `failures` in a row: exponential, with full jitter."""
    return entropy * min(MAX_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, 20))


def _older(one: str, other: str) -> bool:
    """Whether a resource version is before another; what is no number cannot be told."""
    return one.isdecimal() and other.isdecimal() and int(one) < int(other)
