"""One check of one agent, over a connection of its own."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from gateway.identity import IdentityError, principal_from_certificate
from gateway.membership.health.spec import CheckSpec, CheckType
from gateway.routing import Agent, Protocol

Context = Callable[[Agent], ssl.SSLContext]

DEFAULT_PATH: Final = "/healthz"

_READ_BYTES = 16384
_MOST_BYTES = 65536
"""Of an answer; a longer one is a failed check."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r?\n")
_GRPC_PATH = "/grpc.health.v1.Health/Check"
_GRPC_REQUEST = bytes(5)  # neither compressed nor long: a HealthCheckRequest without a service means the whole server
_GRPC_SERVING = b"\x08\x01"
"""``HealthCheckResponse{status: SERVING}``."""


class CheckFailed(Exception):
    """The agent is there, and not well; the message says how."""


async def probe(agent: Agent, check: CheckSpec, context: Context) -> str:
    """Ask `agent` once.

    Args:
        agent: whom.
        check: what, and for how long.
        context: gives the TLS context for agents that are to be reached over TLS.

    Returns:
        Nothing when it is well, else why not, in a few words.

    """
    if check.type is CheckType.GRPC and agent.protocol is Protocol.HTTP1:
        # gRPC is HTTP/2; where packets go over HTTP/1.1, checks still can.
        agent = replace(agent, protocol=Protocol.H2 if agent.tls else Protocol.H2C)
    try:
        async with asyncio.timeout(check.timeout_s):
            await _ask(agent, check, context)
    except TimeoutError:
        return f"no answer within {check.timeout_s:g} s"
    except (OSError, IdentityError, CheckFailed, h2.exceptions.ProtocolError) as error:  # a TLS error is an OSError
        return str(error) or type(error).__name__
    return ""


async def _ask(agent: Agent, check: CheckSpec, context: Context) -> None:
    tls = context(agent) if agent.tls else None
    reader, writer = await asyncio.open_connection(agent.host, check.port or agent.port, ssl=tls, limit=_MOST_BYTES)
    try:
        if tls is not None:
            _identify(agent, writer)
        if check.type is CheckType.GRPC:
            await _grpc(agent, reader, writer)
        elif check.type is CheckType.HTTP:
            await _http(agent, check.path or DEFAULT_PATH, reader, writer)
    finally:
        writer.transport.abort()  # nothing is left to be said, and a slow close would outlast the check


def _identify(agent: Agent, writer: asyncio.StreamWriter) -> None:
    """Make sure that it is `agent` who answers, as on the way of packets.

    Raises:
        IdentityError: it shows no identity, or another.
        CheckFailed: it does not agree to h2.

    """
    connection = writer.get_extra_info("ssl_object")
    certificate = connection.getpeercert(binary_form=True)
    if certificate is None:
        raise IdentityError("no certificate")
    shown = principal_from_certificate(certificate).id
    if agent.spiffe_id is not None and shown != agent.spiffe_id:
        raise IdentityError(f"it shows {shown}, not {agent.spiffe_id}")
    if agent.protocol is Protocol.H2 and connection.selected_alpn_protocol() != "h2":
        raise CheckFailed("the agent did not agree to h2")


async def _http(agent: Agent, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    authority = _authority(agent)
    if agent.protocol is Protocol.HTTP1:
        status = await _http1(authority, path, reader, writer)
    else:
        head = _head(agent, "GET", authority, path)
        fields, _ = await _http2(head, b"", reader, writer, until=h2.events.ResponseReceived)
        status = fields.get(":status", "")
    if not (len(status) == 3 and status.startswith("2")):
        raise CheckFailed(f"{path} answered {status or 'nothing'}")


async def _http1(authority: str, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    lines = f"GET {path} HTTP/1.1", f"host: {authority}", "user-agent: phoenixflight", "connection: close", "", ""
    writer.write("\r\n".join(lines).encode("latin-1"))
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        raise CheckFailed("closed before it had answered") from None
    except asyncio.LimitOverrunError:
        raise CheckFailed("the answer is not HTTP") from None
    matched = _STATUS_LINE.fullmatch(line)
    if matched is None:
        raise CheckFailed("the answer is not HTTP")
    return matched[1].decode()


async def _grpc(agent: Agent, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = [
        *_head(agent, "POST", _authority(agent), _GRPC_PATH),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    fields, body = await _http2(head, _GRPC_REQUEST, reader, writer, until=h2.events.StreamEnded)
    status = fields.get("grpc-status", "")
    if fields.get(":status") != "200" or status != "0":
        raise CheckFailed(f"the health service answered {fields.get(':status', '')}, grpc-status {status or 'none'}")
    if body[:1] != b"\0" or body[5:] != _GRPC_SERVING:
        raise CheckFailed("the health service says that it is not serving")


async def _http2(
    head: list[tuple[str, str]],
    body: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    until: type[h2.events.Event],
) -> tuple[dict[str, str], bytes]:
    """Send one request; gives the fields of the answer, trailers included, and its body, as they are at `until`."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="latin-1"))
    connection.initiate_connection()
    connection.send_headers(1, head, end_stream=not body)
    if body:
        connection.send_data(1, body, end_stream=True)
    fields: dict[str, str] = {}
    answer = b""
    received = 0
    while True:
        writer.write(connection.data_to_send())
        data = await reader.read(_READ_BYTES)
        received += len(data)
        if not data or received > _MOST_BYTES:
            raise CheckFailed("too long an answer" if data else "closed before it had answered")
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                fields.update((str(name), str(value)) for name, value in event.headers)
            elif isinstance(event, h2.events.DataReceived):
                answer += event.data
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise CheckFailed("broken off before it had answered")
            if isinstance(event, until):
                return fields, answer


def _authority(agent: Agent) -> str:
    host = f"[{agent.host}]" if ":" in agent.host else agent.host
    return f"{host}:{agent.port}"


def _head(agent: Agent, method: str, authority: str, path: str) -> list[tuple[str, str]]:
    scheme = "https" if agent.tls else "http"
    return [
        (":method", method),
        (":scheme", scheme),
        (":authority", authority),
        (":path", path),
        ("user-agent", "phoenixflight"),
    ]
