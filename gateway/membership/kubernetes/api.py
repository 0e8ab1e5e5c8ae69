"""What is asked of an API server: lists in pages, and watches, by lightkube's client.

lightkube's own watch does not tell bookmarks, the resource version or why it ended, so its requests are sent and their
answers read here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Generic, NamedTuple, TypeVar

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError
from lightkube.core.generic_client import ALL_NS, BasicRequest, GenericAsyncClient
from lightkube.core.resource import NamespacedResourceG
from lightkube.resources import core_v1, discovery_v1

from gateway.membership.kubernetes.objects import (
    SERVICE_OF_SLICE,
    Bare,
    Endpoints,
    EndpointSlice,
    Key,
    Object,
    ObjectMeta,
    Service,
)
from gateway.membership.kubernetes.offer import IS_AGENT
from gateway.membership.kubernetes.spec import KubernetesSpec

PAGE: Final = 500
"""Objects in one answer of a list, as client-go asks for."""
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""An object has at most 1.5 MiB in etcd."""
OBJECTS_A_TURN: Final = 20
"""Of a list are read before others have their turn on the event loop."""
TIMEOUT_S: Final = 10.0
"""To connect, and between two pieces of a list."""
GRACE_S: Final = 10.0
"""How much longer than it was asked to last a watch may be silent."""
MAX_RETRY_AFTER_S: Final = 300.0

Found = TypeVar("Found", bound=Object)


class Kind(NamedTuple, Generic[Found]):
    """A kind of object, and which of them are asked for."""

    plural: str
    resource: type[NamespacedResourceG]
    model: type[Found]
    selector: str | None

    @property
    def named(self) -> str:
        """As roles name it, with its group where it has one: ``endpointslices.discovery.k8s.io``."""
        group = self.resource._api_info.resource.group
        return f"{self.plural}.{group}" if group else self.plural


SERVICES: Final = Kind("services", core_v1.Service, Service, f"{IS_AGENT}=true")
SLICES: Final = Kind("endpointslices", discovery_v1.EndpointSlice, EndpointSlice, SERVICE_OF_SLICE)
ENDPOINTS: Final = Kind("endpoints", core_v1.Endpoints, Endpoints, None)


class ApiTrouble(Exception):
    """The API server did not answer as it should; the message says how.  `retry_after_s` is what it asks for."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP's, or that of a Status object in a watch; 0 if there was no such answer."""
        self.retry_after_s = retry_after_s


class Page(NamedTuple):
    """One answer of a list."""

    version: str
    objects: list[Object]
    unread: dict[Key, str]
    """Objects that are not of the form that was expected, and why."""
    more: str
    """What to ask the next page with; empty after the last."""


class Event(NamedTuple):
    """One line of a watch."""

    type: str
    """``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``; or `OPENED`, which is no line but comes first."""
    metadata: ObjectMeta
    found: Object | None
    """Of ADDED and MODIFIED; None if it is not of the form that was expected."""
    problem: str


OPENED: Final = "OPENED"
"""The server agreed to the watch."""


class _List(msgspec.Struct):
    metadata: ObjectMeta
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float = 0.0


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


_loading = threading.Lock()
"""Held while a kubeconfig is read: msgspec crashes when two threads meet its types for the first time at once."""


def load_config(spec: KubernetesSpec, service_account: str = SERVICE_ACCOUNT) -> SingleConfig:
    """How to reach the API server: by `spec`'s kubeconfig, else by the service account of this pod.

    Raises:
        ApiTrouble: there is nothing that could be used.

    """
    try:
        with _loading:
            if spec.kubeconfig is None:
                found = KubeConfig.from_service_account(service_account).get()
            else:
                found = KubeConfig.from_file(spec.kubeconfig).get(spec.context)
    except KeyError as error:
        raise ApiTrouble(f"no way to the API server is configured: {error.args[0]} is missing") from None
    except (AttributeError, TypeError) as error:
        # What lightkube makes of a document of another shape, as one is while it is being written.
        raise ApiTrouble(f"no way to the API server is configured: the kubeconfig has a wrong shape: {error}") from None
    except (ConfigError, OSError, ValueError, yaml.YAMLError) as error:
        raise ApiTrouble(f"no way to the API server is configured: {error}") from None
    if found is None or found.user is None:
        raise ApiTrouble("no way to the API server is configured: the kubeconfig names no user")
    user, path = found.user, found.user.token_file
    # A relative path is one from the kubeconfig's folder; lightkube would take it from the working directory.
    return found._replace(user=msgspec.structs.replace(user, token_file=str(found.abs_file(path)))) if path else found


class Api:
    """A client of its own for one watch; with `load`ed addresses, roots, certificates and tokens."""

    def __init__(self, load: Callable[[], SingleConfig]) -> None:
        self._load = load
        self._client: GenericAsyncClient | None = None

    async def close(self) -> None:
        """Forget all that was loaded: the next request reads it again."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def page(self, kind: Kind[Any], namespace: str, more: str) -> Page:
        """One page of a list, consistent with the others; `namespace` is empty for all.

        Raises:
            ApiTrouble: with status 404 if the kind is not served, with 410 if `more` is too old.

        """
        parameters = {"limit": str(PAGE), "continue": more or None}
        answer = bytearray()
        async with (
            asyncio.timeout(3 * TIMEOUT_S),
            aclosing(self._ask(kind, namespace, parameters, TIMEOUT_S)) as pieces,
        ):
            async for piece in pieces:
                answer += piece
                if len(answer) > MAX_ANSWER_BYTES:
                    raise ApiTrouble(f"a list of {kind.plural} is larger than {MAX_ANSWER_BYTES} bytes")
        try:
            listed = msgspec.json.decode(answer, type=_List)
            objects: list[Object] = []
            unread: dict[Key, str] = {}
            for number, raw in enumerate(listed.items or ()):
                if number % OBJECTS_A_TURN == 0:
                    await asyncio.sleep(0)
                metadata, found, problem = _read(raw, kind.model)
                if found is not None:
                    objects.append(found)
                else:
                    unread[metadata.key] = problem
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ApiTrouble(f"a list of {kind.plural} cannot be read: {error}") from None
        return Page(listed.metadata.resource_version, objects, unread, listed.metadata.continue_)

    async def watch(self, kind: Kind[Any], namespace: str, version: str, duration_s: int) -> AsyncGenerator[Event]:
        """What happened since `version`, and happens in the next `duration_s`.

        Raises:
            ApiTrouble: with status 410 if `version` is too old.

        """
        parameters = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(duration_s),
        }
        rest = b""
        async with aclosing(self._ask(kind, namespace, parameters, duration_s + GRACE_S)) as pieces:
            await anext(pieces)
            yield Event(OPENED, ObjectMeta(resource_version=version), None, "")
            async for piece in pieces:
                # Not by a client's lines: those end at characters, too, that stand in JSON as they are.
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _event(line, kind)
                if len(rest) > MAX_EVENT_BYTES:
                    raise ApiTrouble(f"an event of {kind.plural} is larger than {MAX_EVENT_BYTES} bytes")
        if rest.strip():
            raise ApiTrouble("the connection ended within an event")

    async def _ask(
        self, kind: Kind[Any], namespace: str, parameters: Mapping[str, str | None], silence_s: float
    ) -> AsyncGenerator[bytes]:
        """The body of a good answer, with an empty piece first."""
        try:
            if self._client is None:
                self._client = await asyncio.to_thread(self._connect)
            request = self._request(self._client, kind, namespace, parameters, silence_s)
            response: httpx2.Response = await self._client.send(request, stream=True)
            try:
                if response.status_code != httpx2.codes.OK:
                    raise _refusal(response, await response.aread())
                yield b""
                async for piece in response.aiter_bytes():
                    yield piece
            finally:
                await response.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ConfigError, OSError, ValueError) as error:
            text = str(error).partition("\n")[0] or type(error).__name__
            raise ApiTrouble(f"the API server cannot be reached: {text}") from None

    def _connect(self) -> GenericAsyncClient:
        params = ConnectionParams(timeout=httpx2.Timeout(TIMEOUT_S), trust_env=False)
        try:
            return GenericAsyncClient(params, self._load())
        except (ConfigError, OSError, ValueError) as error:
            raise ApiTrouble(f"no way to the API server is configured: {error}") from None

    def _request(
        self,
        client: GenericAsyncClient,
        kind: Kind[Any],
        namespace: str,
        parameters: Mapping[str, str | None],
        silence_s: float,
    ) -> httpx2.Request:
        asked = {"labelSelector": kind.selector, **parameters}
        watch = "watch" in parameters
        request: BasicRequest = client.prepare_request(
            "list", kind.resource, namespace=namespace or ALL_NS, watch=watch, params=asked
        )
        request.timeout = httpx2.Timeout(TIMEOUT_S, read=silence_s)
        return client.build_adapter_request(request)


def _read(raw: msgspec.Raw, model: type[Found]) -> tuple[ObjectMeta, Found | None, str]:
    try:
        found = msgspec.json.decode(raw, type=model)
    except msgspec.ValidationError as error:
        return msgspec.json.decode(raw, type=Bare).metadata, None, f"the object cannot be read: {error}"
    return found.metadata, found, ""


def _event(line: bytes, kind: Kind[Any]) -> Event:
    try:
        event = msgspec.json.decode(line, type=_Event)
        if event.type == "ERROR":
            raise _trouble(msgspec.json.decode(event.object, type=_Status), 0.0)
        if event.type in ("ADDED", "MODIFIED"):
            return Event(event.type, *_read(event.object, kind.model))
        return Event(event.type, msgspec.json.decode(event.object, type=Bare).metadata, None, "")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ApiTrouble(f"an event of {kind.plural} cannot be read: {error}") from None


def _refusal(response: httpx2.Response, body: bytes) -> ApiTrouble:
    try:
        status = msgspec.json.decode(body, type=_Status)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        status = _Status()
    status.code = response.status_code
    after = response.headers.get("retry-after", "")
    return _trouble(status, float(after) if after.isdecimal() else 0.0)


def _trouble(status: _Status, after_s: float) -> ApiTrouble:
    asked_s = max(after_s, status.details.retry_after_seconds if status.details is not None else 0.0)
    text = f"the API server answered {status.code} {status.reason}".rstrip()
    if status.message:
        text += f": {status.message[:300]}"
    return ApiTrouble(text, status=status.code, retry_after_s=min(asked_s, MAX_RETRY_AFTER_S))
