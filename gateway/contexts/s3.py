"""Objects in a bucket of an S3-compatible service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import httpx

from gateway.contexts.objects import Listed
from gateway.contexts.sigv4 import canonical_query, load_credentials, signed_headers
from gateway.contexts.spec import S3Spec
from gateway.contexts.store import StoreError

TIMEOUT_S: Final = 10.0
"""For connecting, and for each silence of the service."""
MAX_LIST_BYTES: Final = 4 * 1024 * 1024
"""Of one page of a listing, which names 1,000 objects."""
_FOUND: Final = 200


class S3Objects:
    """`Objects` in a bucket; when an object was put is told by the service's clock.

    Only the tasks of this process take turns: replicas that store for the same principal at the same moment may go
    beyond its quota together.
    """

    def __init__(self, spec: S3Spec) -> None:
        """Nothing is connected yet."""
        self._spec = spec
        self._host = urlsplit(spec.endpoint).netloc
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        self._turn = asyncio.Lock()

    async def put(self, key: str, body: bytes, now: float) -> None:
        """See `Objects.put`."""
        await self._ask("PUT", key, body=body)

    async def get(self, key: str) -> bytes | None:
        """See `Objects.get`."""
        answer = await self._ask("GET", key)
        return answer.content if answer.status_code == _FOUND else None

    async def listed(self, prefix: str) -> list[Listed]:
        """See `Objects.listed`."""
        found: list[Listed] = []
        query = {"list-type": "2", "prefix": self._spec.prefix + prefix}
        while True:
            answer = await self._ask("GET", "", query)
            page = _parsed(answer.content)
            for each in page.iterfind("{*}Contents"):
                key, when = each.findtext("{*}Key"), each.findtext("{*}LastModified")
                if key is None or when is None:
                    raise StoreError("S3: a listing without keys and times")
                found.append(Listed(key.removeprefix(self._spec.prefix), datetime.fromisoformat(when).timestamp()))
            more = page.findtext("{*}NextContinuationToken")
            if not more:
                return found
            query["continuation-token"] = more

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Objects.delete`."""
        for key in list(keys):
            await self._ask("DELETE", key)

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """See `Objects.exclusive`."""
        async with self._turn:
            yield

    async def close(self) -> None:
        """See `Objects.close`."""
        await self._client.aclose()

    async def _ask(
        self, method: str, key: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> httpx.Response:
        """Ask the service; an object that is not there is an answer, too."""
        spec, query = self._spec, query or {}
        path = f"/{spec.bucket}" + (f"/{quote(spec.prefix + key)}" if key else "")
        try:
            credentials = await asyncio.to_thread(load_credentials, spec.credentials)
            headers = signed_headers(method, self._host, path, query, body, spec.region, credentials, datetime.now(UTC))
            url = f"{spec.endpoint}{path}" + (f"?{canonical_query(query)}" if query else "")
            answer = await self._client.request(method, url, content=body, headers=headers)
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise StoreError(f"S3: {error or type(error).__name__}") from None
        if not (answer.is_success or (answer.status_code == 404 and key)):
            code = _parsed(answer.content).findtext("{*}Code") or _parsed(answer.content).findtext("Code")
            raise StoreError(f"S3: {method} answers {answer.status_code} {code or ''}".rstrip())
        return answer


def _parsed(text: bytes) -> ElementTree.Element:
    """A document of the service.  Whoever runs it could keep the contexts to itself, too, so it is trusted as far."""
    if len(text) > MAX_LIST_BYTES:
        raise StoreError("S3: the answer is too long")
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - expat bounds what entities expand to
    except ElementTree.ParseError:
        return ElementTree.Element("Error")
