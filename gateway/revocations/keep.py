"""Operators' orders in a file, over a restart."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gateway.authority.revocations import Entry


def read_kept(path: Path | None) -> list[Entry]:
    """What was kept; nothing where there is no file yet.

    Raises:
        ValueError: the file is not one that `write_kept` wrote.
        OSError: it cannot be read.

    """
    if path is None or not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Entry])
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: not what a gateway keeps there: {error}") from None


def write_kept(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the file, in one step that a crash does not halve.

    Raises:
        OSError: it cannot be written.

    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(list(entries))))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
