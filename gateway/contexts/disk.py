"""Objects as files in a folder, which the processes of one machine may share."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from gateway.contexts.objects import Listed
from gateway.contexts.store import StoreError

T = TypeVar("T")

_TEMPORARY: Final = "tmp/"


class DiskObjects:
    """`Objects` in a folder; when an object was put is its file's time of modification."""

    def __init__(self, folder: Path) -> None:
        """Nothing is opened yet; the folder is made when something is put into it."""
        self._folder = folder
        self._turn = asyncio.Lock()

    async def put(self, key: str, body: bytes, now: float) -> None:
        """See `Objects.put`; the disk has it when this returns."""

        def put() -> None:
            path, fresh = self._folder / key, self._folder / _TEMPORARY / secrets.token_hex(8)
            fresh.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(body)
                    if body:
                        file.flush()
                        os.fsync(file.fileno())
                os.utime(fresh, (now, now))
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fresh.replace(path)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise

        await self._in_thread(put)

    async def get(self, key: str) -> bytes | None:
        """See `Objects.get`."""

        def get() -> bytes | None:
            try:
                return (self._folder / key).read_bytes()
            except FileNotFoundError:
                return None

        return await self._in_thread(get)

    async def listed(self, prefix: str) -> list[Listed]:
        """See `Objects.listed`."""
        return await self._in_thread(lambda: list(self._walk(prefix)))

    def _walk(self, prefix: str) -> Iterable[Listed]:
        try:
            entries = list(os.scandir(self._folder / prefix))
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(f"{prefix}{entry.name}/")
                continue
            with contextlib.suppress(FileNotFoundError):  # it goes meanwhile
                yield Listed(f"{prefix}{entry.name}", entry.stat().st_mtime)

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Objects.delete`."""
        paths = [self._folder / key for key in keys]

        def delete() -> None:
            for path in paths:
                path.unlink(missing_ok=True)
                for parent in path.parents:
                    if parent == self._folder:
                        break
                    try:
                        parent.rmdir()
                    except OSError:  # there is something else in it, or it is gone
                        break

        await self._in_thread(delete)

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """See `Objects.exclusive`: no other process that uses the folder changes anything, either."""
        async with self._turn:
            lock = await self._in_thread(self._lock)
            try:
                yield
            finally:
                os.close(lock)

    def _lock(self) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    async def close(self) -> None:
        """See `Objects.close`: nothing is open."""

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise StoreError(f"{self._folder}: {error.strerror or error}") from None
