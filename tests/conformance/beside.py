"""A well-behaved client beside an attack: it must be answered in time, throughout, by a process that does not grow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import CAPABILITY, RunningGateway
from tests.waiting import eventually

ASKS_EVERY_S = 0.05
ANSWERED_WITHIN_S = 1.0
MAX_GROWTH_BYTES = 64 * 1024 * 1024


@dataclass
class Polite:
    """What the well-behaved client has seen."""

    waited_s: list[float] = field(default_factory=list)
    """How long each request took that was answered 200."""
    failures: list[str] = field(default_factory=list)
    grown_bytes: int = 0
    """By how much the gateway's resident memory was above its start, at its most."""


@contextmanager
def beside(
    gateway: RunningGateway,
    *,
    answered_within_s: float = ANSWERED_WITHIN_S,
    max_growth_bytes: int = MAX_GROWTH_BYTES,
    headers: dict[str, str] = CAPABILITY,
    caller: str | None = None,
) -> Iterator[Polite]:
    """Ask every 50 ms while the block runs, and hold the gateway to it at the end.

    Args:
        gateway: with an agent for ``code.execute`` that answers 200.
        answered_within_s: for every single request.
        max_growth_bytes: of resident memory, from the block's start.
        headers: of each request.
        caller: whose SVID it shows; ``None`` asks on the plaintext listener.

    Raises:
        AssertionError: a request failed or took too long, or the gateway grew.

    """
    seen = Polite()
    over = threading.Event()
    before = gateway.rss_bytes()
    client = gateway.client(caller) if caller else httpx.Client(base_url=gateway.plain_url, timeout=10, trust_env=False)

    def ask() -> None:
        began = time.monotonic()
        try:
            response = client.get("/polite", headers=headers)
        except httpx.TransportError as error:
            seen.failures.append(repr(error))
            return
        if response.status_code == 200:
            seen.waited_s.append(time.monotonic() - began)
        else:
            seen.failures.append(f"{response.status_code} {response.text}")

    def ask_on() -> None:
        while not over.wait(ASKS_EVERY_S):
            ask()
            seen.grown_bytes = max(seen.grown_bytes, gateway.rss_bytes() - before)

    ask()
    thread = threading.Thread(target=ask_on, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(20)
        assert gateway.process.poll() is None, gateway.log()
        ask()
        client.close()
    assert not seen.failures, seen.failures
    assert max(seen.waited_s) < answered_within_s, f"answered after {max(seen.waited_s):.2f} s"
    seen.grown_bytes = max(seen.grown_bytes, gateway.rss_bytes() - before)
    assert seen.grown_bytes < max_growth_bytes, f"grown by {seen.grown_bytes >> 20} MiB"


def counted(gateway: RunningGateway, metric: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels, as ``/metrics`` tells it now."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(gateway.admin("/metrics").text)
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )


@contextmanager
def counts(gateway: RunningGateway, metric: str, **labels: str) -> Iterator[None]:
    """Hold that the block makes a counter go up."""
    before = counted(gateway, metric, **labels)
    yield
    eventually(lambda: counted(gateway, metric, **labels) > before)
