"""The flight recorder: takes records on the event loop, and writes them in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.documents import DocumentError
from gateway.handoff import Handoff
from gateway.recorder.compose import open_record
from gateway.recorder.erase import Request, erase, erase_alone, requests_in
from gateway.recorder.heads import Signer
from gateway.recorder.line import Kind, Lost
from gateway.recorder.segments import ChainFolder, InUseError, chains_in, timestamp
from gateway.recorder.spec import Fsync, OnFailure, RecorderSpec
from gateway.verdict import Decided

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 0.05
"""How long a record waits for the thread, at most."""
MAX_PENDING = 50_000
"""Records that are not written yet; beyond it they are lost, and counted.  The heads of their packets are in memory."""
BEHIND = MAX_PENDING // 2
"""So many are trouble: the disk is too slow."""
CAUGHT_UP = MAX_PENDING // 8
SLICE = 32
"""Records that are written at once; after each slice the event loop has its turn."""
RETRY_S = 0.5
KEEPING_INTERVAL_S = 600.0
"""How often it is looked what is too old."""
CLOSE_TIMEOUT_S = 5.0

_encode = msgspec.json.Encoder().encode


class _Told(NamedTuple):
    """A line that another thread wants in the chain."""

    kind: Kind
    content: bytes
    done: threading.Event


_Item = bytes | tuple[str, Decided]
"""The record of a handoff that ended, or who has one that has not."""


class Recorder:
    """Holds up no packet; what it cannot keep is counted, and told in the chain as soon as there is a way."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        spec: RecorderSpec,
        signer: Signer | None,
        on_trouble: Callable[[bool], None],
        *,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        """Begin to record.

        Args:
            loop: whose turns records are gathered on.
            spec: where, how safely, for how long.
            signer: signs heads, if there is one.
            on_trouble: told on the loop when packets cannot be recorded, or only just, and when they can again.
            clock: seconds since the epoch.
            entropy: random bytes, so many.

        Raises:
            OSError: the folder cannot be written.

        """
        self.trouble = ""
        """Why records cannot be kept, or only just; empty when all is well."""
        self.records = 0
        """Written."""
        self._loop = loop
        self._spec = spec
        self._signer = signer
        self._on_trouble = on_trouble
        self._clock = clock
        self._entropy = entropy
        self._batch: list[_Item] = []
        self._timer: TimerHandle | None = None
        self._accepted = 0
        self._dropped = 0
        """Lost on the loop, for there were too many, or by a defect; `_spoilt` were lost in the thread, by a defect."""
        self._spoilt = 0
        self._lost_since = 0.0
        self._behind = False
        # The thread's own from here on; the loop only reads them.
        self._failing = ""
        self._settled = 0
        """Of those accepted, how many are written, or lost."""
        self._synced = 0
        self._told_lost = 0
        self._unwritten: deque[_Item] = deque()
        self._slice: list[bytes] = []
        """Records that are being written, of so many items."""
        self._slice_items = 0
        self._lines: deque[_Told] = deque()
        self._erasing: threading.Thread | None = None
        self._erase_again_at = 0.0
        self._ending = threading.Event()
        self._queue: queue.SimpleQueue[list[_Item] | _Told | None] = queue.SimpleQueue()
        self._chain = ChainFolder.claim(spec.folder, spec, signer, clock=clock, entropy=entropy)
        self._worker = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._worker.start()

    # -- on the loop ------------------------------------------------------------------------------------

    def add(self, handoff: Handoff, decided: Decided, record: bytes) -> None:
        """A handoff ended, of which `record` is kept; empty where a defect has kept it from being made."""
        if record:
            self._gather(record)
        else:
            self._lose()

    def add_open(self, under_way: Iterable[tuple[Decided, str]]) -> None:
        """Handoffs that have been under way for long, and the agents that have them: so that they leave a trace."""
        for decided, agent in under_way:
            self._gather((agent, decided))

    def _gather(self, item: _Item) -> None:
        if self._accepted - self._settled >= MAX_PENDING:
            self._lose()
            return
        self._accepted += 1
        self._batch.append(item)
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_INTERVAL_S, self._flush)

    def _lose(self) -> None:
        self._lost_since = self._lost_since or self._clock()
        self._dropped += 1

    def _flush(self) -> None:
        self._timer = None
        batch, self._batch = self._batch, []
        self._queue.put(batch)
        self._look()

    def _look(self) -> None:
        """Whether there is trouble."""
        pending = self._accepted - self._settled
        self._behind = pending > (CAUGHT_UP if self._behind else BEHIND)
        before = self.trouble
        self.trouble = self._failing or ("it falls behind: the disk, or the processor, is too slow" * self._behind)
        if bool(before) == bool(self.trouble):
            return
        if self.trouble:
            refuses = self._spec.on_failure is OnFailure.REFUSE
            others = (
                "what cannot be kept will be counted as lost, and packets of rules with audit: required are refused"
            )
            what = "new packets are refused" if refuses else others
            log.error("the flight recorder is in trouble: %s; %s", self.trouble, what)
        else:
            log.warning("the flight recorder records again; %d records are lost so far", self.lost)
        self._on_trouble(bool(self.trouble))

    @property
    def lost(self) -> int:
        """Records that could not be kept."""
        return self._dropped + self._spoilt

    @property
    def unsynced(self) -> int:
        """Records that the disk does not have for certain."""
        return self._accepted - self._synced

    @property
    def bytes_kept(self) -> int:
        """Of all files of this process's chain."""
        return self._chain.size + self._chain.closed_bytes

    @property
    def segments(self) -> int:
        """How many files that are."""
        return self._chain.closed_segments + 1

    def close(self) -> None:
        """Write what is left."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        self._ending.set()
        self._queue.put(None)
        self._worker.join(CLOSE_TIMEOUT_S)
        left = self._accepted - self._settled
        if left:
            log.error("the flight recorder could not write the last %d records: %s", left, self._failing or "no time")

    # -- in the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        sync_s = self._spec.sync_interval_s
        now = time.monotonic()
        sync_at, sign_at, keep_at = now + sync_s, now, now
        ended = False
        while not ended:
            waits = RETRY_S if self._failing else max(0.0, sync_at - time.monotonic())
            ended = self._take(waits)
            now = time.monotonic()
            try:
                self._write()
                if now >= sign_at:
                    self._chain.sign()
                    sign_at = now + self._spec.sign_interval_s
                if now >= sync_at or self._spec.fsync is Fsync.ALWAYS:
                    self._sync()
                    self._look_for_requests(now)
                    sync_at = now + sync_s
                if now >= keep_at:
                    self._chain.retain()
                    self._tend_others()
                    keep_at = now + KEEPING_INTERVAL_S
                self._failed("")
            except OSError as error:
                self._failed(f"{self._spec.folder} cannot be written: {error.strerror or error}")
            except Exception as defect:
                log.exception("the flight recorder failed")
                self._failed(f"a defect: {defect!r}")
        self._end()

    def _take(self, waits: float) -> bool:
        """Take what has come, or wait for it so long; ``True`` when nothing will come any more."""
        try:
            item = self._queue.get(timeout=waits)
            while True:
                if item is None:
                    return True
                if isinstance(item, _Told):
                    self._lines.append(item)
                else:
                    self._unwritten += item
                item = self._queue.get_nowait()
        except queue.Empty:
            return False

    def _write(self) -> None:
        """Write what there is, a slice after the other.

        Raises:
            OSError: that failed; what was not written is still there.

        """
        chain = self._chain
        while self._slice_items or self._unwritten or self._lines or self.lost > self._told_lost:
            if chain.full:
                chain.retain()
            self._tell_of_loss()
            while self._lines:
                told = self._lines[0]
                chain.append([(told.kind, told.content)])
                self._sync()
                self._lines.popleft().done.set()
            self._cut_slice()
            chain.append([(Kind.HANDOFF, content) for content in self._slice])
            self._settled += self._slice_items
            self.records += len(self._slice)
            self._slice_items, self._slice = 0, []

    def _cut_slice(self) -> None:
        """Make records of the next items, unless there are some that could not be written."""
        while self._unwritten and self._slice_items < SLICE:
            content = self._content(self._unwritten.popleft())
            self._slice_items += 1
            if content:
                self._slice.append(content)

    def _content(self, item: _Item) -> bytes:
        if isinstance(item, bytes):
            return item
        agent, decided = item
        try:
            return open_record(decided, agent)
        except Exception:
            log.exception("a record could not be made")
            self._lost_since = self._lost_since or self._clock()
            self._spoilt += 1
            return b""

    def _tell_of_loss(self) -> None:
        lost = self.lost
        if lost > self._told_lost:
            now = self._clock()
            why = self._failing or "there were too many"
            told = Lost(lost - self._told_lost, timestamp(self._lost_since or now), timestamp(now), why)
            self._chain.append([(Kind.LOST, _encode(told))])
            self._told_lost, self._lost_since = lost, 0.0

    def _sync(self) -> None:
        self._chain.sync()
        self._synced = self._settled

    def _failed(self, why: str) -> None:
        """So it stands; the loop is told of a change."""
        changed = bool(why) != bool(self._failing)
        self._failing = why
        if (changed or self._behind) and not self._ending.is_set():
            self._loop.call_soon_threadsafe(self._look)

    def _look_for_requests(self, now: float) -> None:
        """Begin with an erasure that was asked for, if there is one."""
        if (self._erasing is not None and self._erasing.is_alive()) or now < self._erase_again_at:
            return
        for path, request in requests_in(self._chain.folder).items():
            if request is None:
                log.error("recorder: %s is no request, and is removed", path)
                path.unlink()
                continue
            if self._chain.has_lines:
                self._chain.rotate()
            work = threading.Thread(target=self._erase, args=(path, request), name="erasure", daemon=True)
            self._erasing = work
            work.start()
            return

    def _erase(self, path: Path, request: Request) -> None:
        """In a thread of its own, for it may have much to read."""

        def tell(kind: Kind, content: bytes) -> None:
            told = _Told(kind, content, threading.Event())
            self._queue.put(told)
            while not told.done.wait(RETRY_S):
                if self._ending.is_set():
                    raise OSError("the gateway is ending")

        try:
            count = erase(self._chain, request, tell, self._clock())
            path.unlink(missing_ok=True)
            log.info("recorder: erased %d records of a conversation, as request %s asked", count, request.id)
        except (OSError, DocumentError) as error:
            self._erase_again_at = time.monotonic() + KEEPING_INTERVAL_S / 10
            log.error("recorder: request %s could not be met, and will be tried again: %s", request.id, error)

    def _tend_others(self) -> None:
        """Do for chains that no process has what their processes would."""
        for folder in chains_in(self._spec.folder):
            if folder == self._chain.folder:
                continue
            try:
                with closing(self._chain_in(folder)) as chain:
                    chain.retain()
                    for path, request in requests_in(folder).items():
                        if request is not None:
                            erase_alone(chain, request, self._clock())
                        path.unlink()
            except InUseError:
                continue
            except (OSError, DocumentError) as error:
                log.error("recorder: %s could not be looked after: %s", folder, error)

    def _chain_in(self, folder: Path) -> ChainFolder:
        return ChainFolder(folder, self._spec, self._signer, clock=self._clock, entropy=self._entropy)

    def _end(self) -> None:
        if self._erasing is not None:
            self._erasing.join(CLOSE_TIMEOUT_S)
        try:
            self._chain.close()
            self._synced = self._settled
        except OSError as error:
            self._failing = self._failing or str(error)
