"""The admin port's server: Hypercorn's connections, each with the principal of its certificate."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from starlette.types import ASGIApp

from gateway.admin.access import Access, Guarded, Trusted
from gateway.admin.whole import Whole
from gateway.identity import IdentityError, Principal, principal_from_certificate

GRACE_S = 3.0
"""How long answers under way have when the port closes."""


class AdminServer:
    """Serves an application on sockets that listen, in the caller's own loop."""

    def __init__(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        *,
        access: Access | None = None,
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """Nothing is served yet.

        Args:
            app: what answers.
            sockets: where it listens; they are closed at the end.
            access: who may ask; ``None`` where only those who may can connect.
            context: gives the TLS context for the next connection; ``None`` for plaintext.

        """
        self._app = app
        self._sockets = sockets
        self._access = access
        self._context = _newest(context) if context is not None else None
        self._config = Config()
        self._config.errorlog = logging.getLogger("hypercorn.error")
        self._worker = WorkerContext(None)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop`."""
        servers = [await asyncio.start_server(self._connected, sock=each, ssl=self._context) for each in self._sockets]
        try:
            await stop.wait()
        finally:
            for server in servers:
                server.close()
            await self._worker.terminated.set()
            if self._tasks:
                _, late = await asyncio.wait(self._tasks, timeout=GRACE_S)
                for task in late:
                    task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        app: ASGIApp = Trusted(self._app)
        if self._access is not None:
            app = Guarded(self._app, self._access, _principal(writer.get_extra_info("ssl_object")))
        loop = asyncio.get_running_loop()
        await TCPServer(ASGIWrapper(Whole(app)), loop, self._config, self._worker, {}, reader, writer)  # type: ignore[arg-type]


def _newest(context: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context that leaves each handshake to what `context` gives at its time."""

    def chosen(shaken: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        shaken.context = context()

    first = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    first.minimum_version = ssl.TLSVersion.TLSv1_2
    first.verify_mode = ssl.CERT_OPTIONAL  # probes have no certificate, and may ask all the same
    first.options |= ssl.OP_NO_TICKET
    first.num_tickets = 0
    first.set_alpn_protocols(["h2", "http/1.1"])
    first.sni_callback = chosen  # called whether the caller sends a name or not
    return first


def _principal(shaken: ssl.SSLObject | None) -> Principal | None:
    certificate = shaken.getpeercert(binary_form=True) if shaken is not None else None
    if not certificate:
        return None
    try:
        return principal_from_certificate(certificate)
    except IdentityError:
        return None
