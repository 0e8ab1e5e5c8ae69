"""Operators' orders in a file, over a restart."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from gateway.authority.revocations import Entry


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a file keeps."""

    orders: tuple[Entry, ...] = ()
    unshared: tuple[Entry, ...] = ()
    """Those of them that other replicas have not been told."""
    version: str = ""
    """Of what replicas share, as it was known."""


NOTHING_KEPT = Kept()


def read_kept(path: Path | None) -> Kept:
    """What was kept; nothing where there is no file yet.

    Raises:
        ValueError: the file is not one that `write_kept` wrote.
        OSError: it cannot be read.

    """
    if path is None or not path.exists():
        return NOTHING_KEPT
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: not what a gateway keeps there: {error}") from None


def write_kept(path: Path, kept: Kept) -> None:
    """Replace the file, in one step that a crash does not halve.

    Raises:
        OSError: it cannot be written.

    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(kept)))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
