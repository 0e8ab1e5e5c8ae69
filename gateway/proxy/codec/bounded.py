"""h2's connection with the bounds that it lacks: an allowance for each kind of frame, and header blocks of a size.

Frames are counted as they are read, so that what one read of the socket can make us do is bounded, too.  Not to be
compiled: it derives from a class of the library's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.proxy.codec.budget import FloodGuard, Kind
from gateway.proxy.codec.library import LIBRARY, h2

_Codes = h2.errors.ErrorCodes
_ClosedBy = h2.stream.StreamClosedBy
_SETTINGS_IN_ONE = 8
"""A SETTINGS frame with more than these counts for more than one."""
_SPARE_CONTINUATIONS = 8
"""CONTINUATION frames in one block, beyond those that a block of the greatest size needs."""
_FRAME_BYTES = 16384
_HUFFMAN_BYTES = 1024


class Abused(Exception):
    """The peer has used up an allowance; `abuse` says which, as in `FloodGuard.abuse`."""

    def __init__(self, abuse: str) -> None:
        super().__init__(abuse)
        self.abuse = abuse


def _spare_huffman(encoder: Any) -> None:
    """Have long values go out as they are: Huffman coding in Python takes the square of their length."""
    add = encoder.add

    def add_plainly(field: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> Any:
        return add(field, sensitive, huffman and len(field[0]) + len(field[1]) < _HUFFMAN_BYTES)

    encoder.add = add_plainly


class _Buffer(h2.frame_buffer.FrameBuffer):
    """Holds a header block back until it is whole, if it stays within its bounds until then."""

    max_block_bytes: int
    spend: Any

    def _update_header_buffer(self, f: Any) -> Any:
        begun = self._headers_buffer
        if begun and f is not None:
            if len(begun) > _SPARE_CONTINUATIONS + self.max_block_bytes // _FRAME_BYTES:
                raise Abused("continuation-flood")
            if sum(len(each.data) for each in begun) > self.max_block_bytes:
                raise Abused("header-list-too-large")
            if not getattr(f, "data", b"x"):
                self.spend(Kind.EMPTY)
        return super()._update_header_buffer(f)


class BoundedConnection(h2.connection.H2Connection):
    """An `H2Connection` whose peer has a `FloodGuard`.

    Raises `Abused` from `receive_data` once an allowance is used up.

    Args:
        config: the library's.
        guard: the peer's allowances.
        max_block_bytes: of a header block, encoded or decoded; more ends the connection.
        on_goaway: told the last of our streams that the peer takes.

    """

    MAX_CLOSED_STREAMS = 2048
    """Streams that are over and still known, so that a late frame costs its stream and not the connection."""

    def __init__(self, config: Any, guard: FloodGuard, max_block_bytes: int, on_goaway: Callable[[int], None]) -> None:
        super().__init__(config)
        self.guard = guard
        self._on_goaway = on_goaway
        self.incoming_buffer = _Buffer(server=not config.client_side)
        self.incoming_buffer.max_block_bytes = max_block_bytes
        self.incoming_buffer.spend = self._spend
        self.decoder.max_header_list_size = max_block_bytes
        if LIBRARY == "h2":
            _spare_huffman(self.encoder)

    @property
    def overlong(self) -> bool:
        """Whether what is left over of the last read begins a frame that is longer than one may be."""
        rest = self.incoming_buffer._data
        return len(rest) >= 3 and int.from_bytes(rest[:3], "big") > self.max_inbound_frame_size

    def _spend(self, kind: Kind, count: int = 1) -> None:
        if not self.guard.spend(kind, count):
            raise Abused(self.guard.abuse)

    def _is_over(self, stream_id: int) -> bool:
        stream = self.streams.get(stream_id)
        return stream is None or stream.closed

    def _receive_settings_frame(self, frame: Any) -> Any:
        self._spend(Kind.SETTINGS, 1 + len(frame.settings) // (_SETTINGS_IN_ONE + 1))
        return super()._receive_settings_frame(frame)

    def _receive_ping_frame(self, frame: Any) -> Any:
        self._spend(Kind.PING)
        return super()._receive_ping_frame(frame)

    def _receive_rst_stream_frame(self, frame: Any) -> Any:
        # An agent may refuse whatever we open; it is not what it can flood us with.
        if not self.config.client_side or self._is_over(frame.stream_id):
            self._spend(Kind.RESET)
        return super()._receive_rst_stream_frame(frame)

    def _receive_priority_frame(self, frame: Any) -> Any:
        self._spend(Kind.PRIORITY)
        return super()._receive_priority_frame(frame)

    def _receive_window_update_frame(self, frame: Any) -> Any:
        self._spend(Kind.WINDOW_UPDATE)
        return super()._receive_window_update_frame(frame)

    def _receive_alt_svc_frame(self, frame: Any) -> Any:
        self._spend(Kind.UNKNOWN)
        return super()._receive_alt_svc_frame(frame)

    def _receive_unknown_frame(self, frame: Any) -> Any:
        self._spend(Kind.UNKNOWN)
        return super()._receive_unknown_frame(frame)

    def _receive_goaway_frame(self, frame: Any) -> Any:
        """Nothing more: open streams may finish (RFC 9113 section 6.8), where the library would close."""
        self._spend(Kind.UNKNOWN)
        self._on_goaway(frame.last_stream_id)
        return [], []

    def _receive_data_frame(self, frame: Any) -> Any:
        if self._is_over(frame.stream_id):
            self._spend(Kind.LATE)
        elif not frame.data and "END_STREAM" not in frame.flags:
            self._spend(Kind.EMPTY)
        return super()._receive_data_frame(frame)

    def _receive_headers_frame(self, frame: Any) -> Any:
        stream_id = frame.stream_id
        if stream_id in self.streams or self.config.client_side:
            return super()._receive_headers_frame(frame)
        if stream_id <= self.highest_inbound_stream_id:
            self._spend(Kind.LATE)
        elif stream_id % 2 and self.open_inbound_streams >= self.local_settings.max_concurrent_streams:
            return self._refuse(frame)
        return super()._receive_headers_frame(frame)

    def _refuse(self, frame: Any) -> Any:
        """Refuse a stream beyond the limit (RFC 9113 section 5.1.2), where the library would end the connection."""
        self._spend(Kind.REFUSED)
        # What the block does to the HPACK table counts for those that follow.
        h2.connection._decode_headers(self.decoder, frame.data)
        self.highest_inbound_stream_id = frame.stream_id
        self._closed_streams[frame.stream_id] = _ClosedBy.SEND_RST_STREAM
        kinds: Any = self._frame_dispatch_table
        reset = next(kind for kind in kinds if kind.__name__ == "RstStreamFrame")(stream_id=frame.stream_id)
        reset.error_code = _Codes.REFUSED_STREAM
        return [reset], []
