"""Files change: which folders are watched, what one reading of all files comes to, and what is told of it.

A reading takes place in a thread.  It gives the event loop its turn often, and changes nothing: what it found is an
`Attempt`, which the loop puts in force by assignment.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from watchfiles import Change, awatch

from gateway.authority import Entry
from gateway.control import snapshot as snapshots
from gateway.control.config import GatewaySpec
from gateway.control.files import CONFIG_MAP_LINK
from gateway.control.snapshot import Everyone, Loaded, only_files
from gateway.control.tls import TlsContexts, TlsError, tls_files
from gateway.decision import Snapshot
from gateway.documents import DocumentError
from gateway.recording import Decided, Flip, flip, record, redecide

DEBOUNCE_MS = 200
"""The longest that changes are gathered before they are read; 50 ms of silence end it, too."""
REWATCH_MS = 5_000
"""How soon it is seen at the latest that a watched folder is not the one that it was."""
SWITCH_INTERVAL_S = 0.0005
"""The longest that Python code in the thread keeps the event loop waiting."""
GATHER_S = 0.01
"""How long changes of any kind are gathered."""
MAX_EVENTS = 50
MAX_TOLD = 20
"""Problems or warnings of one set that are told; the rest is counted."""


@dataclass(frozen=True, slots=True)
class ReloadEvent:
    """A set came into force, or was refused."""

    at: datetime
    revision: str | None
    """What came into force; ``None`` when it was refused."""
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class Status:
    """What ``/status`` tells: what is in force, and what became of the changes before."""

    revision: str
    since: datetime
    files: list[str]
    warnings: tuple[str, ...]
    """What `gateway.policy.lint` says of the set in force."""
    certificates_since: datetime
    last_refused: ReloadEvent | None = None
    history: deque[ReloadEvent] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    """The newest last."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one reading of all files came to."""

    tls: TlsContexts | None
    """``None`` when the certificates could not be used."""
    loaded: Loaded | None
    """``None`` when it is the set in force, or one that could not be used."""
    problems: tuple[str, ...]
    revoked: tuple[Entry, ...] | None = None
    """``None`` when what documents revoke could not be used."""
    defect: Exception | None = None
    """What went wrong in the gateway itself."""


@dataclass(frozen=True, slots=True)
class FlipGuard:
    """Holds back a set under which too many of the latest packets would come out otherwise."""

    max_flips: int
    latest: Sequence[Decided]

    def objection(self, in_force: Snapshot, candidate: Snapshot) -> str:
        """Why `candidate` is not to be put in force; empty when it may be.

        Only allowed and refused count: that a packet would go to another agent is what a change of members is for.
        """
        count = total = 0
        first = ""
        for decided in self.latest:
            recorded = record(decided)
            if not recorded.judged:
                continue
            total += 1
            change = flip(redecide(recorded, in_force), redecide(recorded, candidate))
            if change in (Flip.NOW_REFUSED, Flip.NOW_ALLOWED):
                count += 1
                first = first or f"{recorded.flight_id} of {recorded.caller}, {recorded.capability}: {change.value}"
        if count <= self.max_flips:
            return ""
        return (
            f"{count} of the latest {total} packets would come out otherwise, and reload.maxFlips is {self.max_flips}; "
            f"the first is {first}. SIGHUP puts the set in force all the same"
        )


def attempt(
    config: GatewaySpec,
    in_force: Snapshot,
    guard: FlipGuard | None = None,
    everyone: Everyone = only_files,
) -> Attempt:
    """Read and check every file, to be put in force where it differs from `in_force`.  For a thread."""
    try:
        with beside_the_loop():
            return _attempt(config, in_force, guard, everyone)
    except Exception as defect:
        return Attempt(None, None, (f"the gateway failed to read its files: {defect!r}",), defect=defect)


def _attempt(config: GatewaySpec, in_force: Snapshot, guard: FlipGuard | None, everyone: Everyone) -> Attempt:
    tls: TlsContexts | None = None
    loaded: Loaded | None = None
    revoked: tuple[Entry, ...] | None = None
    problems: list[object] = []
    try:
        revoked = snapshots.read_revoked(config)  # on its own: what is wrong with policies must not hold it up
    except DocumentError as error:
        problems += error.problems
    try:
        tls = TlsContexts.load(config.identity, config.connect_authority)
    except TlsError as error:
        problems.append(error)
    try:
        sources = snapshots.read(config)
        if sources.revision != in_force.revision:
            loaded = snapshots.build(sources, config, everyone, in_force)
            objection = guard.objection(in_force, loaded.snapshot) if guard is not None else ""
            if objection:
                problems.append(objection)
                loaded = None
    except DocumentError as error:
        problems += error.problems
    return Attempt(tls, loaded, told(problems), revoked)


def told(found: Sequence[object]) -> tuple[str, ...]:
    """The first of `found` as text, and how many more there are."""
    more = (f"and {len(found) - MAX_TOLD} more",) if len(found) > MAX_TOLD else ()
    return (*map(str, found[:MAX_TOLD]), *more)


@contextmanager
def beside_the_loop() -> Iterator[None]:
    """Python's threads take turns, and a full garbage collection is one turn.

    Building makes no cycles, so that nothing is lost by leaving the collector off meanwhile.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        sys.setswitchinterval(interval)


async def watch(config: GatewaySpec, changed: Callable[[], None], stop: asyncio.Event) -> None:
    """Call `changed` each time that a file which `config` names may have changed, until `stop`."""
    sources = {config.policies, *((config.revocations.path,) if config.revocations.path is not None else ())}
    files = {config.members, *tls_files(config.identity, config.connect_authority)}
    if config.keys is not None:
        files.add(config.keys)

    def concerns_us(_: Change, name: str) -> bool:
        path = Path(name)
        return path.name == CONFIG_MAP_LINK or path in files or not sources.isdisjoint((path, path.parent))

    folders = {*sources, *(source.parent for source in sources), *(file.parent for file in files)}
    while not stop.is_set():
        watched = _identities(folders)
        fresh = True
        try:
            async for changes in awatch(
                *watched,
                watch_filter=concerns_us,
                debounce=DEBOUNCE_MS,
                stop_event=stop,
                rust_timeout=REWATCH_MS,
                yield_on_timeout=True,
                recursive=False,
            ):
                if changes or fresh:  # the first time, for what changed before the folders were watched
                    changed()
                fresh = False
                # A folder that was removed or replaced takes its watch with it.
                if _identities(folders) != watched:
                    break
        except FileNotFoundError:  # it went away between the two
            continue


def _identities(folders: set[Path]) -> dict[Path, tuple[int, int]]:
    """Device and inode of those that exist."""
    found: dict[Path, tuple[int, int]] = {}
    for folder in folders:
        try:
            status = folder.stat()
        except OSError:
            continue
        if folder.is_dir():
            found[folder] = status.st_dev, status.st_ino
    return found
