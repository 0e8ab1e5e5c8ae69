"""``PUT``, ``GET`` and ``HEAD /contexts/DIGEST``: agents bring and fetch contexts on the listener for packets."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final

import http_sf

from gateway.authority import Credential
from gateway.contexts import Contexts, Put, StoreError
from gateway.contexts.cipher import DamagedError
from gateway.contexts.contexts import MismatchError
from gateway.headers import field_value
from gateway.identity import Principal
from gateway.messages import RequestHead, ResponseHead
from gateway.packet import fields as names
from gateway.proxy.local import Answer
from gateway.refusal import Reason, Refusal

QUOTA_RETRY_AFTER_S: Final = 60

Verify = Callable[[bytes, Principal], Credential | Refusal]
"""Whether a ``flight-credential`` is one, and may be shown by this principal."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
UNAVAILABLE = Refusal(Reason.OVERLOADED, "the store of contexts does not answer; try again later", retry_after_s=1)
DAMAGED = Refusal(Reason.INTERNAL, "the context is not as it was stored; store it again, and see the gateway's log")
# Whether there is none, or none for this caller, is for nobody to find out.
_UNKNOWN = Refusal(
    Reason.CONTEXT_UNKNOWN,
    "this conversation has no such context that you may read; it may be too old, or erased: have it stored again",
)
_NOT_A_DIGEST = Refusal(
    Reason.CONTEXT_MALFORMED, "expected /contexts/ and the context's SHA-256 in 64 lower-case hexadecimal digits"
)
_NO_CONVERSATION = Refusal(
    Reason.CONTEXT_MALFORMED,
    'expected flight-conversation, a String in double quotes, like flight-conversation: "c-17"',
)
_OTHER_CONVERSATION = Refusal(Reason.CONTEXT_UNKNOWN, "the credential is for another conversation")
_NOT_IT = Refusal(Reason.CONTEXT_MALFORMED, "the body is not the one that the digest in the path was made of")
_METHOD = Refusal(Reason.METHOD_NOT_ALLOWED, "/contexts/DIGEST knows PUT, GET and HEAD")


def readers_of(principal: Principal, held: Credential | None, conversation: str) -> list[str]:
    """For whom a caller asks: for itself, and for those that it has the work of this conversation from."""
    return [principal.id, *(held.lineage if held is not None and held.conversation == conversation else ())]


class ContextRequests:
    """Answers agents that bring contexts and fetch them."""

    prefix: Final = "/contexts/"

    def __init__(self, contexts: Contexts, verify: Verify) -> None:
        self._contexts = contexts
        self._verify = verify

    @property
    def too_large(self) -> Refusal:
        """Told to whoever sends more than a context may have."""
        most = self._contexts.spec.max_size
        return Refusal(Reason.CONTEXT_TOO_LARGE, f"a context may have at most {most} bytes here")

    async def handle(self, head: RequestHead, principal: Principal, body: bytes, peer: str) -> Answer | Refusal:
        """Answer one request; its path begins with ``/contexts/``."""
        if head.method not in (b"PUT", b"GET", b"HEAD"):
            return _METHOD
        digest = head.path.decode("latin-1").removeprefix(self.prefix)
        if _DIGEST.fullmatch(digest) is None:
            return _NOT_A_DIGEST
        held: Credential | None = None
        shown = field_value(head.fields, names.CREDENTIAL)
        if shown is not None:
            verified = self._verify(shown, principal)
            if isinstance(verified, Refusal):
                return verified
            held = verified
        conversation = _conversation(head, held)
        if isinstance(conversation, Refusal):
            return conversation
        try:
            if head.method == b"PUT":
                return await self._put(conversation, digest, body, principal, held)
            return await self._get(conversation, digest, principal, held)
        except StoreError:
            return UNAVAILABLE
        except DamagedError:
            return DAMAGED

    async def _put(
        self, conversation: str, digest: str, body: bytes, principal: Principal, held: Credential | None
    ) -> Answer | Refusal:
        spec = self._contexts.spec
        try:
            found = await self._contexts.put(conversation, digest, body, principal.id, held.lineage if held else ())
        except MismatchError:
            return _NOT_IT
        if found is Put.OVER_QUOTA:
            detail = (
                f"you may keep at most {spec.max_count} contexts with {spec.max_bytes} bytes; "
                "have those of conversations that are over erased, or wait for them to become too old"
            )
            return Refusal(Reason.CONTEXT_QUOTA, detail, retry_after_s=QUOTA_RETRY_AFTER_S)
        fields = [(b"location", f"{self.prefix}{digest}".encode()), (b"content-length", b"0")]
        return (ResponseHead(201, fields) if found is Put.STORED else ResponseHead(204, fields[:1])), b""

    async def _get(
        self, conversation: str, digest: str, principal: Principal, held: Credential | None
    ) -> Answer | Refusal:
        body = await self._contexts.get(conversation, digest, readers_of(principal, held, conversation))
        if body is None:
            return _UNKNOWN
        return ResponseHead(
            200,
            [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", b"%d" % len(body)),
                (names.CONTENT_DIGEST, b"sha-256=:%s:" % b64encode(bytes.fromhex(digest))),
                (b"cache-control", b"no-store"),
            ],
        ), body


def _conversation(head: RequestHead, held: Credential | None) -> str | Refusal:
    """The conversation that is meant: the credential's, where none is named."""
    named = field_value(head.fields, names.CONVERSATION)
    if named is None:
        return held.conversation if held is not None and held.conversation else _NO_CONVERSATION
    try:
        item: Any = http_sf.parse(named, tltype="item")
    except http_sf.StructuredFieldError:
        return _NO_CONVERSATION
    value = item[0]
    if type(value) is not str or not value:
        return _NO_CONVERSATION
    return value if held is None or held.conversation == value else _OTHER_CONVERSATION
