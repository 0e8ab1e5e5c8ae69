"""Verifying the chains of a folder, beside gateways that add to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.packet.keys import Key
from gateway.recorder.line import Position
from gateway.recorder.segments import chains_in, read_head, segments_in
from gateway.recorder.verify import Report, verify

ATTEMPTS = 5
"""How often a chain is read anew because files were removed meanwhile."""


class FolderReport(NamedTuple):
    """What one chain came to."""

    chain: Path
    report: Report


def verify_folder(
    folder: Path, keys: Sequence[Key] = (), anchors: Sequence[tuple[str, Position]] = ()
) -> list[FolderReport]:
    """Verify each chain.

    Args:
        folder: with chains, or one.
        keys: as for `verify`.
        anchors: the name of a chain's folder, and where the chain stood.

    Raises:
        OSError: something cannot be read, or there is no chain.

    """
    chains = chains_in(folder)
    if not chains:
        raise OSError(f"{folder}: no recorder has written here")
    missing = {name for name, _ in anchors} - {chain.name for chain in chains}
    if missing:
        raise OSError(f"{folder}: {', '.join(sorted(missing))} is missing")
    return [
        FolderReport(chain, _verify_chain(chain, keys, [at for name, at in anchors if name == chain.name]))
        for chain in chains
    ]


def _verify_chain(chain: Path, keys: Sequence[Key], anchors: Sequence[Position]) -> Report:
    for attempt in range(ATTEMPTS):
        head = read_head(chain)  # first: what is added meanwhile only makes the chain longer
        try:
            return verify(((str(path), _lines(path)) for path in segments_in(chain)), head, keys, anchors)
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        yield from lines
