"""What is told to a collector over OTLP: gathered on the loop, encoded and sent in a thread of its own.

A collector that is slow, gone or hostile costs what was to be told, counted, and never a packet.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

log = logging.getLogger(__name__)

INTERVAL_S: Final = 1.0
"""How long what ended waits for others, at most."""
MAX_WAITING: Final = 2048
"""Beyond this, with a collector that cannot keep up, what comes is dropped and counted."""
CLOSE_S: Final = 5.0
"""How long the end waits for the collector."""
TELL_INTERVAL_S: Final = 60.0
"""How often trouble that goes on is logged."""
_BREATH_S: Final = 50e-6

Item = TypeVar("Item")
Told = TypeVar("Told", contravariant=True)


class UnsentError(Exception):
    """The collector did not take an export; the message says why."""


class Signal(Protocol[Told]):
    """What is told, spans or log records, and the way it goes."""

    name: str
    """In the plural, for people."""
    max_batch: int
    """How many are sent at once."""

    def count(self, item: Told) -> int:
        """How many spans, or log records, `item` is."""

    def export(self, batch: Sequence[Told]) -> int:
        """Send `batch`, in the export's thread, trying again for a while; gives how many the collector rejected.

        Raises:
            UnsentError: it was not taken.

        """

    def shutdown(self) -> None:
        """Try no more; from another thread."""


class Export(Generic[Item]):
    """A bounded queue, and the thread that empties it."""

    def __init__(self, signal: Signal[Item], *, interval_s: float = INTERVAL_S) -> None:
        """Start.

        Args:
            signal: what is told, and how.
            interval_s: how long what was added waits for more, at most.

        """
        self.exported = 0
        self.dropped = {"queue": 0, "collector": 0}
        """By what could not keep up: the queue was full, or the collector did not take them."""
        self._signal = signal
        self._interval_s = interval_s
        self._waiting: deque[Item] = deque()
        self._wake = threading.Event()
        self._until = math.inf
        """When the end waits no longer, by `monotonic`; known once it has begun."""
        self._told_at = -math.inf
        """When trouble was last logged."""
        self._in_trouble = False
        """It was logged, and its end was not."""
        self._thread = threading.Thread(target=self._run, name=f"export of {signal.name}", daemon=True)
        self._thread.start()

    def add(self, item: Item) -> None:
        """Tell of `item`, soon."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped["queue"] += self._signal.count(item)
            return
        self._waiting.append(item)
        if len(self._waiting) == self._signal.max_batch:
            self._wake.set()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Send what is left, for so long at most."""
        self._until = monotonic() + timeout_s
        self._wake.set()
        self._thread.join(timeout_s)
        self._signal.shutdown()

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            closing = self._until < math.inf
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._signal.max_batch))]
                size = sum(map(self._signal.count, batch))
                try:
                    self._export(batch, size)
                except UnsentError as error:
                    self.dropped["collector"] += size
                    self._tell(str(error))
                except Exception:
                    # A defect costs these, and not those to come.
                    self.dropped["collector"] += size
                    log.exception("%d %s could not be exported", size, self._signal.name)

    def _export(self, batch: list[Item], size: int) -> None:
        if monotonic() > self._until:
            raise UnsentError("there was no time left for it")
        rejected = min(self._signal.export(batch), size)
        self.exported += size - rejected
        self.dropped["collector"] += rejected
        if rejected:
            self._tell(f"it rejected {rejected}")
        elif self._in_trouble:
            self._in_trouble = False
            log.info("the collector takes %s again", self._signal.name)

    def _tell(self, why: str) -> None:
        now = monotonic()
        if now - self._told_at > TELL_INTERVAL_S:
            self._told_at = now
            self._in_trouble = True
            lost = self.dropped["collector"] + self.dropped["queue"]
            log.warning("the collector does not take %s (%d are lost so far): %s", self._signal.name, lost, why)


def let_others_run() -> None:
    """Give the loop a turn, in the middle of long work in a thread: without, it waits up to 5 ms for one."""
    time.sleep(_BREATH_S)
