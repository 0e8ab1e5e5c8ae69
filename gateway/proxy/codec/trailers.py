"""What may not stand in trailers (RFC 9110 section 6.5.1), where it would say something else than the head did. Pure.

Framing, routing, authentication, and what makes a packet belong into the head.  Such a trailer is dropped: it means
nothing there, but an agent that merges trailers into the head would take it for the head's.
"""

from __future__ import annotations

from gateway.messages import Fields
from gateway.packet import fields as names

_HEAD_ONLY = frozenset(
    {
        b"age",
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"max-forwards",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"www-authenticate",
    }
)
_REQUEST_ONLY = names.FORWARDING | {
    names.MCP_SESSION,
    names.SIGNATURE,
    names.SIGNATURE_INPUT,
    names.TRACEPARENT,
    names.TRACESTATE,
    names.BAGGAGE,
}


def for_agents(trailers: Fields) -> Fields:
    """A request's trailers without what belongs into its head; ``_`` counts as ``-``, as CGI-style servers fold it."""
    return [item for item in trailers if not _of_request_head(item[0].replace(b"_", b"-"))]


def _of_request_head(name: bytes) -> bool:
    return name in _HEAD_ONLY or name in _REQUEST_ONLY or name.startswith((b"flight-", names.FORWARDING_PREFIX))


def for_callers(trailers: Fields) -> Fields:
    """A response's trailers without what belongs into its head, or only the gateway may say."""
    return [item for item in trailers if item[0] not in _HEAD_ONLY and item[0] not in names.GATEWAY_ONLY_RESPONSE]
