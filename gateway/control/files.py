"""Reading the files of a configuration: bounded, and never half of one version and half of another."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from gateway.documents import MAX_TEXT_BYTES, DocumentError, Problem

MAX_READINGS = 10
"""How often files are read that keep changing meanwhile."""
CONFIG_MAP_LINK = "..data"
"""In a ConfigMap's or Secret's mount, what leads to the folder of the version in force; the kubelet replaces it."""

Value = TypeVar("Value")
_Stamps = Mapping[str, object]


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        DocumentError: it is not there, no regular file, larger than a document may be, or not UTF-8.

    """
    return _read(path, str(path))


def read_sources(path: Path) -> dict[str, str]:
    """The YAML files of a folder (as a ConfigMap mounts it, too), or a single file; path to text.

    Raises:
        DocumentError: one cannot be read, or there is nothing at `path`.

    """
    if not path.is_dir():
        return {str(path): read_text(path)}
    try:
        return {name: _read(file, name) for file in _documents(path) for name in [str(path / file.name)]}
    except OSError as error:
        raise _refusal(str(path), error.strerror or str(error)) from None


def read_settled(paths: Iterable[Path], read: Callable[[], Value]) -> Value:
    """What `read` makes of the files and folders `paths`, read again when they changed meanwhile.

    Raises:
        DocumentError: they kept changing.
        Exception: what `read` raises about files that stayed as they were.

    """
    watched = tuple(paths)
    before = _stamps(watched)
    for _ in range(MAX_READINGS):
        error: Exception | None = None
        try:
            value = read()
        except Exception as raised:  # raised again below, unless the files changed under its feet
            error = raised
        after = _stamps(watched)
        if after == before:
            if error is not None:
                raise error
            return value
        before = after
    raise _refusal(str(watched[0]), "it, or a file that belongs with it, changed each time that they were read")


def _refusal(source: str, message: str) -> DocumentError:
    return DocumentError([Problem(source, 1, 1, message)])


def _read(path: Path, source: str) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would keep whoever opens it waiting
            raise _refusal(source, "not a regular file")
        with path.open("rb") as file:
            octets = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise _refusal(source, error.strerror or str(error)) from None
    if len(octets) > MAX_TEXT_BYTES:
        raise _refusal(source, f"larger than {MAX_TEXT_BYTES} bytes")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise _refusal(source, "not UTF-8") from None


def _documents(folder: Path) -> list[Path]:
    """Where the YAML files of `folder` are read: what a ConfigMap brought, in the folder of that one version.

    The names in the mount itself are links through ``..data``.  The kubelet adds and removes them after it has replaced
    ``..data``, so that for a moment they are neither the old set nor the new one.
    """
    files = _yaml(folder)
    link = folder / CONFIG_MAP_LINK
    if not link.is_symlink():
        return files
    beside = [file for file in files if not (file.is_symlink() and file.readlink().parts[0] == CONFIG_MAP_LINK)]
    return beside + _yaml(folder / link.readlink())


def _yaml(folder: Path) -> list[Path]:
    # A link that leads nowhere is told, not passed over: what it led to may have been a deny.
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix in (".yaml", ".yml") and not entry.name.startswith(".") and not entry.is_dir()
    )


def _stamps(paths: Iterable[Path]) -> _Stamps:
    """What differs between two calls when any of `paths`, or a document in one that is a folder, was replaced."""
    stamps: dict[str, object] = {}
    for path in paths:
        stamps[str(path)] = _stamp(path)
        stamps[str(path.parent / CONFIG_MAP_LINK)] = _leads_to(path.parent / CONFIG_MAP_LINK)
        stamps[str(path / CONFIG_MAP_LINK)] = _leads_to(path / CONFIG_MAP_LINK)
        if path.is_dir():
            try:
                stamps |= {str(file): _stamp(file) for file in _documents(path)}
            except OSError as error:  # it went away under our feet
                stamps[str(path)] = error.errno
    return stamps


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _leads_to(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except OSError:  # most folders are no mounts
        return None
