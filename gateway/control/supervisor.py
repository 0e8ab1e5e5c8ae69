"""Several workers as one gateway: makes the sockets, starts a process for each, and replaces those that die.

The sockets stay open here: who connects to a worker that has died waits for its successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import httpx

from gateway.admin.access import Access
from gateway.admin.merged import make_merged_app
from gateway.admin.server import AdminServer
from gateway.admin.workers import ASK_TIMEOUT_S, Orders, WorkerReply
from gateway.control.config import ClientAuth, GatewaySpec
from gateway.control.tls import TlsContexts, TlsError
from gateway.control.worker import Inherited
from gateway.proxy.sockets import listening

log = logging.getLogger(__name__)

STEADY_S = 10.0
"""A worker that has lived so long is replaced at once when it dies; one that has not is given a rest first."""
FIRST_REST_S, LONGEST_REST_S = 0.25, 30.0
FORCE_S = 5.0
"""How long a worker that is to end at once may take."""


class Worker:
    """One of the processes, whichever is its at the time, and its sockets."""

    def __init__(
        self, number: int, config: Path, sockets: dict[str, list[socket.socket]], folder: Path, orders: Orders
    ) -> None:
        self.number = number
        self.restarts = 0
        self.up = asyncio.Event()
        """It has answered, in this life or one before."""
        self.missing_since: float | None = 0.0
        """The loop's time; ``None`` while it answers."""
        self.process: Process | None = None
        self._ending = False
        self._orders = orders
        self._sockets = sockets
        path = folder / f"{number}.sock"
        self._admin = socket.socket(socket.AF_UNIX)
        self._admin.bind(str(path))
        self._admin.listen()
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(path)),
            base_url="http://worker",
            headers={"accept": "application/openmetrics-text, */*;q=0.1"},  # it has the exemplars
        )
        # -P: what lies in the working directory is not our code, even where it has our name.
        self._command = [sys.executable, "-P", "-m", "gateway.cli", "run", "--config", str(config), "--worker"]

    async def live(self) -> int:
        """Start a process and wait for its end; gives its exit code."""
        loop = asyncio.get_running_loop()
        self.missing_since = loop.time()
        listeners = {name: tuple(each.fileno() for each in sockets) for name, sockets in self._sockets.items()}
        inherited = Inherited(listeners, self._admin.fileno())
        descriptors = [self._admin.fileno(), *(each for some in listeners.values() for each in some)]
        # Its standard input tells it that this process has gone; a session of its own keeps a terminal's signals off.
        self.process = process = await asyncio.create_subprocess_exec(
            *self._command, inherited.text(), stdin=PIPE, pass_fds=descriptors, start_new_session=True
        )
        if self._ending:
            process.send_signal(signal.SIGTERM)
        looking = loop.create_task(self._look())
        try:
            return await process.wait()
        finally:
            self.process = None
            self.missing_since = loop.time()
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self) -> None:
        """Wait until it answers; the question is in its queue before it has begun."""
        if await self._ask("/healthz") is not None:
            for path, headers in self._orders.again():
                await self._ask(path, "POST", headers, ASK_TIMEOUT_S)
            self.missing_since = None
            self.up.set()
            log.info("worker %d is up", self.number)

    async def ask(
        self, path: str, method: str, headers: Mapping[str, str] | None, timeout_s: float, content: bytes
    ) -> httpx.Response | None:
        """Its answer, if there is one."""
        return await self._ask(path, method, headers, timeout_s, content) if self.missing_since is None else None

    async def _ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        content: bytes = b"",
    ) -> httpx.Response | None:
        try:
            return await self._client.request(method, path, headers=headers, timeout=timeout_s, content=content)
        except httpx.TransportError:
            return None

    async def lines(self, path: str) -> AsyncGenerator[str, None]:
        """The lines of what it answers, as they come; ends when it does, or at once when it does not answer."""
        timeout = httpx.Timeout(ASK_TIMEOUT_S, pool=None)  # a stream is never silent for longer than a second
        try:
            async with self._client.stream("GET", path, timeout=timeout) as answer:
                if answer.is_success:
                    async for line in answer.aiter_lines():
                        yield line
        except httpx.TransportError:
            return

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def end(self) -> None:
        """Have it drain and end, with nobody after it: when it closes its sockets, they are closed."""
        self._ending = True
        for sockets in self._sockets.values():
            for each in sockets:
                each.close()
        self.signal(signal.SIGTERM)

    async def close(self) -> None:
        """Ask no more."""
        self._admin.close()
        await self._client.aclose()


class Supervisor:
    """Owns the workers, their sockets and the admin port."""

    def __init__(self, path: Path, config: GatewaySpec) -> None:
        """Nothing is started yet; `config` is what `path` says."""
        self._path = path
        self._config = config
        self._workers: list[Worker] = []
        self.orders = Orders()
        """What operators have ordered of members."""
        self._stop = asyncio.Event()
        self._force = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether the workers have been told to end."""
        return self._stop.is_set()

    @property
    def each(self) -> Sequence[Worker]:
        """The workers."""
        return self._workers

    async def run(self) -> int:
        """Serve until told to stop; gives the exit code.

        Raises:
            OSError: an address cannot be bound.

        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        admin = self._admin()
        with tempfile.TemporaryDirectory(prefix="phoenixflight-") as folder:
            self._make_workers(Path(folder))
            stop_admin = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(admin.serve(stop_admin))
                forcing = tasks.create_task(self._end_by_force())
                code = await self._serve()
                forcing.cancel()
                stop_admin.set()
            for worker in self._workers:
                await worker.close()
        log.info("all workers have ended")
        return code

    def _admin(self) -> AdminServer:
        spec = self._config.admin
        context = _Contexts(self._config) if spec.tls else None
        sockets = listening(*spec.address, reuse_port=self._config.reuse_port)
        access = Access(spec.allow, spec.token_file)
        return AdminServer(make_merged_app(self, access), sockets, access=access, context=context)

    def _make_workers(self, folder: Path) -> None:
        addresses = {spec.name: spec.address for spec in self._config.listeners}
        for number in range(self._config.workers):
            sockets: dict[str, list[socket.socket]] = {}
            for name, (host, port) in addresses.items():
                sockets[name] = listening(host, port, reuse_port=True)
                addresses[name] = host, sockets[name][0].getsockname()[1]
            self._workers.append(Worker(number, self._path, sockets, folder, self.orders))
        where = ", ".join(f"{name} {host}:{port}" for name, (host, port) in addresses.items())
        log.info("%d workers: %s, admin %s:%d", len(self._workers), where, *self._config.admin.address)

    async def _serve(self) -> int:
        """Keep all workers up; the first one tries the files before the others are started."""
        first, *others = self._workers
        async with asyncio.TaskGroup() as tasks:
            keeping = [tasks.create_task(self._keep_up(first))]
            up = tasks.create_task(first.up.wait())
            await asyncio.wait((*keeping, up), return_when=asyncio.FIRST_COMPLETED)
            up.cancel()
            if first.up.is_set():
                keeping += [tasks.create_task(self._keep_up(each)) for each in others]
        return max(task.result() for task in keeping)

    async def _keep_up(self, worker: Worker) -> int:
        """Replace `worker` whenever it dies, until it is told to end; gives its last exit code."""
        loop = asyncio.get_running_loop()
        rest_s = 0.0
        while not self.draining:
            began = loop.time()
            code = await worker.live()
            if self.draining:
                return 0 if code == -signal.SIGTERM else abs(code)  # by the signal: it had not begun to serve
            if not self._workers[0].up.is_set():
                return abs(code)  # its files, or the machine, are not as they should be; it has told
            steady = loop.time() - began > STEADY_S
            rest_s = 0.0 if steady else min(max(FIRST_REST_S, rest_s * 2), LONGEST_REST_S)
            log.error("worker %d ended with %d; starting another in %g s", worker.number, code, rest_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), rest_s)
            worker.restarts += 1
        return 0

    async def _end_by_force(self) -> None:
        """Kill what goes on although it is to end at once."""
        await self._force.wait()
        await asyncio.sleep(FORCE_S)
        self._pass_on(signal.SIGKILL)

    async def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ASK_TIMEOUT_S,
        content: bytes = b"",
    ) -> list[WorkerReply]:
        """Ask each worker."""
        asked = (worker.ask(path, method, headers, timeout_s, content) for worker in self._workers)
        answers = await asyncio.gather(*asked)
        now = asyncio.get_running_loop().time()
        return [
            WorkerReply(
                worker.number,
                worker.process.pid if worker.process is not None else 0,
                worker.restarts,
                now - worker.missing_since if worker.missing_since is not None else 0.0,
                not worker.up.is_set(),
                answer,
            )
            for worker, answer in zip(self._workers, answers, strict=True)
        ]

    def stop(self) -> None:
        """Have all workers drain and end; the second time, end at once."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()
        for worker in self._workers:
            worker.end()

    def _pass_on(self, number: int) -> None:
        for worker in self._workers:
            worker.signal(number)


class _Contexts:
    """The TLS context for the admin port's next connection, as the files are then."""

    def __init__(self, config: GatewaySpec) -> None:
        """Read the files.

        Raises:
            TlsError: they cannot be used.

        """
        self._identity = config.identity
        self._last = TlsContexts.load(self._identity, None)

    def __call__(self) -> ssl.SSLContext:
        try:
            self._last = TlsContexts.load(self._identity, None)
        except TlsError as error:
            log.error("the admin port goes on with the certificates that it has: %s", error)
        return self._last.server(ClientAuth.OPTIONAL)
