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
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from watchfiles import Change, awatch

from gateway.authority import Entry
from gateway.brokering.secrets import Secrets, read_secrets
from gateway.control import snapshot as snapshots
from gateway.control.config import GatewaySpec, read_config
from gateway.control.files import CONFIG_MAP_LINK
from gateway.control.snapshot import Everyone, Loaded, only_files
from gateway.control.tls import TlsContexts, TlsError, tls_files
from gateway.control.tuning import Settings, settled
from gateway.decision import Snapshot
from gateway.documents import DocumentError
from gateway.recorded import Flip, Recorded
from gateway.recording import flip, redecide

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
    restart: tuple[str, ...] = ()
    """Settings that gateway.yaml has otherwise, and that come into force when the gateway starts again."""
    last_refused: ReloadEvent | None = None
    history: deque[ReloadEvent] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    """The newest last."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one reading of all files came to."""

    settings: Settings | None
    """``None`` when gateway.yaml could not be used."""
    tls: TlsContexts | None
    """``None`` when the certificates could not be used."""
    loaded: Loaded | None
    """``None`` when it is the set in force, or one that could not be used."""
    problems: tuple[str, ...]
    revoked: tuple[Entry, ...] | None = None
    """``None`` when what documents revoke could not be used."""
    defect: Exception | None = None
    """What went wrong in the gateway itself."""
    secrets: Secrets | None = None
    """What agents are given; ``None`` when nobody has looked."""


@dataclass(frozen=True, slots=True)
class FlipGuard:
    """Holds back a set under which too many of the latest packets would come out otherwise."""

    max_flips: int
    latest: Sequence[Recorded]
    """Decisions, as they were taken."""

    def objection(self, in_force: Snapshot, candidate: Snapshot) -> str:
        """Why `candidate` is not to be put in force; empty when it may be.

        Only allowed and refused count: that a packet would go to another agent is what a change of members is for.
        """
        count = total = 0
        first = ""
        for recorded in self.latest:
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
    path: Path,
    config: GatewaySpec,
    in_force: Snapshot,
    guard: FlipGuard | None = None,
    everyone: Everyone = only_files,
) -> Attempt:
    """Read and check every file, to be put in force where it differs from what is.  For a thread.

    Args:
        path: the file of the configuration.
        config: the settings in force.
        in_force: the snapshot in force.
        guard: what may hold a set back.
        everyone: adds the members that are not in files.

    """
    try:
        with beside_the_loop():
            return _attempt(path, config, in_force, guard, everyone)
    except Exception as defect:
        problem = f"the gateway failed to read its files: {defect!r}"
        return Attempt(None, None, None, (problem,), defect=defect)


def _attempt(
    path: Path, config: GatewaySpec, in_force: Snapshot, guard: FlipGuard | None, everyone: Everyone
) -> Attempt:
    settings: Settings | None = None
    moved = False
    tls: TlsContexts | None = None
    loaded: Loaded | None = None
    revoked: tuple[Entry, ...] | None = None
    problems: list[object] = []
    try:
        settings = settled(config, read_config(path))
        moved = _places(config) != _places(settings.spec)
        config = settings.spec
    except DocumentError as error:
        problems += error.problems  # the settings in force stay, and policies are read all the same: one may be a deny
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
        if sources.revision != in_force.revision or moved or _otherwise(config, in_force):
            loaded = snapshots.build(sources, config, everyone, in_force)
            objection = guard.objection(in_force, loaded.snapshot) if guard is not None else ""
            if objection:
                problems.append(objection)
                loaded = None
    except DocumentError as error:
        problems += error.problems
    return Attempt(settings, tls, loaded, told(problems), revoked=revoked)


def _places(config: GatewaySpec) -> tuple[Path | None, ...]:
    signing = config.authority.keys if config.authority is not None else ()
    return config.policies, config.members, config.keys, *signing


def _otherwise(config: GatewaySpec, in_force: Snapshot) -> bool:
    """Whether a snapshot of the same files would differ by its settings."""
    wanted = config.trusted_hops, config.zone, config.ring.points, config.authority
    authority = in_force.authority.spec if in_force.authority is not None else None
    return wanted != (in_force.trusted_hops, in_force.zone, in_force.points, authority)


def with_secrets(found: Attempt, in_use: Loaded, before: Secrets) -> Attempt:
    """`found`, and the secrets of its documents, or of those `in_use` where it has none to put in force.

    A file that cannot be used leaves the secret that was read `before`; without one, its document is not put in force.
    """
    loaded, problems = found.loaded, found.problems
    if loaded is not None:
        secrets, unusable = read_secrets(loaded.secret_files, before)
        problems += told(unusable)
        if secrets.have(loaded.secret_files):
            return replace(found, problems=problems, secrets=secrets)
    secrets, unusable = read_secrets(in_use.secret_files, before)
    problems += tuple(each for each in told(unusable) if each not in problems)
    return replace(found, loaded=None, problems=problems, secrets=secrets)


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


async def watch(
    path: Path,
    in_force: Callable[[], GatewaySpec],
    changed: Callable[[], None],
    stop: asyncio.Event,
    also: Callable[[], frozenset[Path]],
) -> None:
    """Call `changed` each time that a file that the settings or a document names may have changed, until `stop`.

    Args:
        path: of the settings themselves, which may change, too.
        in_force: gives the settings.
        changed: called.
        stop: ends it.
        also: gives the files that the documents in force name.

    """

    def sources() -> set[Path]:
        config = in_force()
        return {config.policies, *((config.revocations.path,) if config.revocations.path is not None else ())}

    def files() -> set[Path]:
        config = in_force()
        keys = () if config.keys is None else (config.keys,)
        signing = () if config.authority is None else config.authority.keys
        tls = tls_files(config.identity, config.connect_authority)
        return {path, config.members, *tls, *keys, *signing, *also()}

    def folders() -> set[Path]:
        return {*sources(), *(file.parent for file in (*sources(), *files()))}

    def concerns_us(_: Change, name: str) -> bool:
        seen = Path(name)
        return seen.name == CONFIG_MAP_LINK or seen in files() or not sources().isdisjoint((seen, seen.parent))

    while not stop.is_set():
        watched = _identities(folders())
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
                # A folder that was removed or replaced takes its watch with it; and the settings may name others now.
                if _identities(folders()) != watched:
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
