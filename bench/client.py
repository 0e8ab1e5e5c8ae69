"""Opening the load generator's connections."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from bench.call import Connection
from bench.http1 import Http1Connection
from bench.http2 import Http2Connection


def tls_context(certs: Path, alpn: str, caller: str = "planner") -> ssl.SSLContext:
    """A caller's mTLS context, with its SVID."""
    context = ssl.create_default_context(cafile=str(certs / "ca.pem"))
    context.load_cert_chain(certs / f"{caller}.pem", certs / f"{caller}-key.pem")
    context.set_alpn_protocols([alpn])
    return context


async def connect(ports: list[int], protocol: str, certs: Path | None, count: int) -> list[Connection]:
    """Open `count` connections, spread over `ports`; plaintext without `certs`.

    Raises:
        ConnectionError: the other side did not agree to `protocol`.

    """
    loop = asyncio.get_running_loop()
    context = tls_context(certs, protocol) if certs is not None else None
    factory = Http2Connection if protocol == "h2" else Http1Connection
    connections: list[Connection] = []
    for number in range(count):
        transport, connection = await loop.create_connection(
            factory,
            "127.0.0.1",
            ports[number % len(ports)],
            ssl=context,
            server_hostname="localhost" if context is not None else None,
        )
        agreed = transport.get_extra_info("ssl_object")
        if agreed is not None and agreed.selected_alpn_protocol() not in (protocol, None):
            raise ConnectionError(f"asked for {protocol}, got {agreed.selected_alpn_protocol()}")
        connections.append(connection)
    return connections
