"""Sans-IO HTTP codecs behind one seam: bytes in give events, commands give bytes out.

`Codec` is the whole interface, for callers (server side) and agents (client side), HTTP/1.1 and HTTP/2 alike,
so that another codec can take one's place with nothing else noticing.
"""

from gateway.proxy.codec.events import (
    ConnectionFailed,
    DataReceived,
    Ended,
    Event,
    GoAwayReceived,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    Writable,
)
from gateway.proxy.codec.http1 import Http1Client, Http1Server
from gateway.proxy.codec.implementation import HTTP2_IMPLEMENTATION, Http2Client, Http2Server
from gateway.proxy.codec.plain import HTTP1_IMPLEMENTATION
from gateway.proxy.codec.seam import ClientCodec, Codec, ServerCodec

__all__ = [
    "HTTP1_IMPLEMENTATION",
    "HTTP2_IMPLEMENTATION",
    "ClientCodec",
    "Codec",
    "ConnectionFailed",
    "DataReceived",
    "Ended",
    "Event",
    "GoAwayReceived",
    "Http1Client",
    "Http1Server",
    "Http2Client",
    "Http2Server",
    "RequestReceived",
    "RequestRefused",
    "ResponseReceived",
    "ServerCodec",
    "StreamReset",
    "TrailersReceived",
    "Writable",
]
