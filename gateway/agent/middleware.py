"""Receiving packets: ASGI middleware that reads and checks what the gateway sends on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.agent.arrival import Arrival, read
from gateway.messages import Fields, RequestHead
from gateway.packet import MalformedPacketError
from gateway.packet import fields as names
from gateway.packet.components import combine
from gateway.packet.digest import MISMATCH, DigestCheck, digest_check
from gateway.packet.keys import KeySet
from gateway.packet.signature import SignatureError, verify
from gateway.refusal import Reason, Refusal, answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class DigestMismatchError(Exception):
    """A body turned out not to be its sender's when the answer was already under way, which is broken off."""


class FlightMiddleware:
    """Gives an ASGI application its packets: ``app = FlightMiddleware(app)``, then ``scope["flight"]``.

    A request that is no packet from the gateway, or whose body does not match its ``content-digest``, is refused
    with the gateway's own problem+json.  With `keys`, each packet must also carry a signature that its sender made.

    What an agent may conclude: ``flight-from`` and all that the gateway has checked are worth as much as the
    connection they came on.  So let nobody but the gateway connect: by mTLS (give the agent a ``spiffeId`` and
    accept only the gateway's certificate) or by the network.  A signature says more: that its signer
    has sent this very packet, whatever stood between.  It does not say that it comes for the first time: the gateway
    remembers that, an agent does not.
    """

    def __init__(
        self,
        app: App,
        keys: KeySet | None = None,
        *,
        scheme: str = "https",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap `app`.

        Args:
            app: the agent.
            keys: the senders' keys; ``None`` leaves signatures to the gateway.
            scheme: what senders reach the gateway by; they have signed it, and the way on to the agent may differ.
            clock: seconds since the epoch.
            monotonic: seconds that only go forward: how much of ``flight-timeout`` is left.

        """
        self._app = app
        self._keys = keys
        self._scheme = scheme.encode("ascii")
        self._clock = clock
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        head = _head(scope, self._scheme)
        values = combine(head.fields)
        try:
            arrival = self._arrival(head, values)
            digest = values.get(names.CONTENT_DIGEST)
            check = None if digest is None else digest_check(digest)
        except MalformedPacketError as error:
            await _refuse(Refusal(Reason.MALFORMED_PACKET, str(error)), scope, values, send)
            return
        if isinstance(arrival, Refusal):
            await _refuse(arrival, scope, values, send)
            return
        scope["flight"] = arrival
        if check is None or scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        await self._with_checked_body(_CheckedBody(receive, send, check), scope, values, send)

    def _arrival(self, head: RequestHead, values: dict[bytes, bytes]) -> Arrival | Refusal:
        if names.FROM not in values:
            return Refusal(Reason.IDENTITY_REQUIRED, "flight-from is missing: only the gateway may send to this agent")
        arrival = read(head, values, self._monotonic)
        if self._keys is None:
            return arrival
        try:
            signature = verify(head, self._keys, None, self._clock())
        except SignatureError as error:
            return Refusal(Reason.SIGNATURE_INVALID, str(error))
        if signature is None:
            return Refusal(Reason.SIGNATURE_INVALID, "signature: this agent takes signed packets only")
        if signature.signer != arrival.sender:
            return Refusal(Reason.SIGNATURE_INVALID, "keyid: the key is not one of the principal who sent the packet")
        return msgspec.structs.replace(arrival, signature=signature)

    async def _with_checked_body(
        self, body: _CheckedBody, scope: Scope, values: dict[bytes, bytes], send: Send
    ) -> None:
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:
            if not body.tampered:
                raise
            # For the application its caller has gone, in the middle of the body: however it ends is right.
        if body.tampered:
            if body.answering:
                raise DigestMismatchError(MISMATCH)
            await _refuse(Refusal(Reason.MALFORMED_PACKET, MISMATCH), scope, values, send)


class _CheckedBody:
    """An application's two channels, with the end of the body withheld when the body is not the sender's."""

    def __init__(self, receive: Receive, send: Send, check: DigestCheck) -> None:
        self.tampered = False
        self.answering = False
        self._receive = receive
        self._send = send
        self._check = check

    async def receive(self) -> Message:
        if self.tampered:
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.request":
            self._check.update(message.get("body", b""))
            self.tampered = not message.get("more_body", False) and not self._check.matches()
            if self.tampered:
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if not self.tampered:
            self.answering = True
            await self._send(message)


def _head(scope: Scope, scheme: bytes) -> RequestHead:
    """The request as its sender made it, in the form of `gateway.messages`."""
    path = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    query = scope.get("query_string")
    if query:
        path += b"?" + query
    authority = b""
    fields: Fields = []
    for name, value in scope["headers"]:
        if name == b"host":
            authority = value
        else:
            fields.append((name, value))
    if scope["type"] == "websocket":
        return RequestHead(b"CONNECT", scheme, authority, path, fields, b"websocket")
    return RequestHead(scope["method"].encode("ascii"), scheme, authority, path, fields)


async def _refuse(refusal: Refusal, scope: Scope, values: dict[bytes, bytes], send: Send) -> None:
    kind = scope["type"]
    if kind == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        kind = "websocket.http"
    content_type = values.get(names.CONTENT_TYPE, b"")
    head, body = answer(refusal, content_type=content_type, flight_id="", revision="")
    await send({"type": f"{kind}.response.start", "status": head.status, "headers": head.fields})
    await send({"type": f"{kind}.response.body", "body": body})
