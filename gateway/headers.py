"""What is asked of a message's head, time and again.  Pure."""

from __future__ import annotations

from gateway.messages import Fields, RequestHead


def field_value(fields: Fields, name: bytes) -> bytes | None:
    """The first value of `name`, or ``None``."""
    for key, value in fields:
        if key == name:
            return value
    return None


def opens_tunnel(head: RequestHead) -> bool:
    """Whether a 2xx answer turns the exchange into a two-way byte stream."""
    return head.method == b"CONNECT"
