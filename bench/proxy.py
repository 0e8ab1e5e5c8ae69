"""What the bench needs to know of a proxy under test, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.process import BenchFailure, Child, start
from bench.target import Target


@dataclass(frozen=True, slots=True)
class Site:
    """What every proxy is given: the same agents, the same certificates, a folder of its own."""

    folder: Path
    certs: Path
    agents: list[int]
    """Ports of the agents, plaintext HTTP/1.1, on every address of the loopback network."""
    tls_agents: list[int]
    """Ports of the same agents, mTLS HTTP/1.1."""
    otlp: int
    """Port of the OTLP sink."""
    redis: int
    """Port of a Redis, which is there for those who need one."""
    port: int
    """The mTLS listener's, free."""
    admin: int
    """Where the metrics are."""

    @property
    def access_log(self) -> Path:
        """Where it logs its handoffs."""
        return self.folder / "access.log"


@dataclass(frozen=True, slots=True)
class Kind:
    """A proxy that can be measured."""

    name: str
    title: str
    prepare: Callable[[Site], list[str]]
    """Writes its configuration; gives its command line."""
    metrics_path: str
    rate: float = 500
    """Requests per second at which its latency is measured."""
    decides: bool = True
    """Whether it refuses whom its policy does not name."""
    logs: bool = True
    """Whether it writes an access log."""
    one_core: bool = True
    """Whether it has a core to itself; else it shares all of them with the load."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that runs."""

    kind: Kind
    site: Site
    child: Child

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Say of a measurement that fails in this block what became of the proxy."""
        try:
            yield
        except (BenchFailure, httpx.TransportError) as failure:
            raise BenchFailure(f"{failure}\n{self.child.condition()}") from None

    def target(self, protocol: str, connections: int) -> Target:
        """The way through it, and its process."""
        return Target(self.kind.name, [self.site.port], protocol, connections, str(self.site.certs), self.child.pid)

    def forget_log(self) -> None:
        """Empty the access log (it is written in append mode), so that a long run fills no disk."""
        self.site.access_log.open("wb").close()


@contextmanager
def all_blamed(proxies: list[Proxy]) -> Iterator[None]:
    """`Proxy.blamed`, for a measurement of several."""
    with ExitStack() as stack:
        for proxy in proxies:
            stack.enter_context(proxy.blamed())
        yield


def launch(kind: Kind, site: Site, core: int | None) -> Proxy:
    """Start a proxy and wait for its listener.

    Raises:
        BenchFailure: it did not start; with the tail of its log.

    """
    site.folder.mkdir()
    child = start(kind.title, kind.prepare(site), site.folder / "process.log", core)
    proxy = Proxy(kind, site, child)
    try:
        child.wait_listening(site.port)
    except BaseException:
        child.stop()
        raise
    return proxy
