"""How a response that has begun ends when it cannot go on: in words of its own format, where it has any.  Pure.

A plain body has none: it is broken off with a reset, so that it cannot look whole.
"""

from __future__ import annotations

from gateway.messages import Fields, ResponseHead
from gateway.refusal import GRPC_CONTENT_TYPE, Refusal, grpc_fields, problem

KEEP_ALIVE = b":\n"
"""A comment (WHATWG HTML, 9.2.6), which readers of events skip: a whole line, and no event's end."""
_SSE = b"text/event-stream"
_LINE_ENDS = (10, 13)


def is_event_stream(head: ResponseHead) -> bool:
    """Whether a line of server-sent events may be put into the body of `head`."""
    return _format(head) == _SSE


def can_end_early(head: ResponseHead) -> bool:
    """Whether the body of `head` can say in its own format that it ends early."""
    media_type = _format(head)
    return media_type == _SSE or media_type.startswith(GRPC_CONTENT_TYPE)


def _format(head: ResponseHead) -> bytes:
    """The media type of a body that can be added to; empty for one whose length or coding is fixed."""
    content_type = b""
    for name, value in head.fields:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length" or (name == b"content-encoding" and value.lower() != b"identity"):
            return b""
    return content_type.partition(b";")[0].strip().lower()


def at_line_start(tail: bytes) -> bool:
    """Whether a new line may begin after `tail`, the last bytes of a body so far."""
    return not tail or tail[-1] in _LINE_ENDS


def last_words(head: ResponseHead, tail: bytes, refusal: Refusal, flight_id: str) -> tuple[bytes, Fields | None] | None:
    """The last piece of body and the trailers that end the response `head`; ``None`` when only a reset can.

    Args:
        head: as the caller got it.
        tail: the last bytes of its body so far.
        refusal: why it cannot go on.
        flight_id: the packet's id.

    """
    media_type = _format(head)
    if media_type == _SSE:
        # An event cut in half takes the name `error`, too, and so is no event of the agent's.
        lead = b"" if at_line_start(tail) else b"\n"
        return lead + b"event: error\ndata: " + problem(refusal, flight_id) + b"\n\n", None
    if media_type.startswith(GRPC_CONTENT_TYPE):
        return b"", grpc_fields(refusal)
    return None
