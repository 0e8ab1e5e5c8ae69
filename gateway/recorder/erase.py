"""Taking a conversation's records out of a chain, which holds all the same.

The chain is over digests, so that a line can lose its record and its salt.  First it is written into the chain which
lines these are, then they lose them: `gateway.recorder.verify` takes a line without a record for erased only if the
chain says so.  Only files that nobody adds to are replaced, each by one rename.

Whoever adds to the chain erases.  Anybody else leaves a request, a file in the chain's folder, which is removed when
it is done; a gateway that dies on the way begins again when it starts.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from gateway.recorder.chain import ranges
from gateway.recorder.line import Erased, Kind
from gateway.recorder.reader import Found, find
from gateway.recorder.segments import ChainFolder, replace_file, sync_folder, timestamp

_encode = msgspec.json.Encoder().encode


class Request(msgspec.Struct, frozen=True):
    """What is to be erased."""

    id: str
    conversation: str

    def leave_in(self, chain: Path) -> Path:
        """Ask whoever has the chain in this folder to do it; gives the file that will be gone when it is done.

        Raises:
            OSError: it cannot be written.

        """
        path = chain / f"erase-{self.id}.json"
        replace_file(path, [_encode(self)])
        return path


def requests_in(chain: Path) -> dict[Path, Request | None]:
    """What others have asked for; ``None`` for a file that is no request."""
    found: dict[Path, Request | None] = {}
    with os.scandir(chain) as entries:
        names = [entry.name for entry in entries if entry.name.startswith("erase-") and entry.name.endswith(".json")]
    for name in sorted(names):
        try:
            found[chain / name] = msgspec.json.decode((chain / name).read_bytes(), type=Request)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            found[chain / name] = None
    return found


def erase(chain: ChainFolder, request: Request, tell: Callable[[Kind, bytes], None], now: float) -> int:
    """Erase what the files that are closed have of a conversation; gives how many records.  In any thread.

    Args:
        chain: whose files.
        request: which conversation.
        tell: adds a line to the chain, and returns when the disk has it.
        now: seconds since the epoch.

    Raises:
        OSError: a file cannot be read or replaced; nothing is half done, and it can be tried again.
        DocumentError: a line is no record.

    """
    found = {path: list(find(path, {"conversation": request.conversation})) for path in chain.closed}
    sequences = sorted(each.line.seq for some in found.values() for each in some)
    if sequences:
        digest = sha256(request.conversation.encode()).hexdigest()
        told = Erased(timestamp(now), request.id, digest, ranges(sequences), len(sequences))
        tell(Kind.ERASED, _encode(told))
    for path, some in found.items():
        if some:
            _take_out(chain, path, some)
    for torn in chain.folder.glob("torn-*"):  # nobody can tell whose they are
        torn.unlink()
    sync_folder(chain.folder)
    return len(sequences)


def _take_out(chain: ChainFolder, path: Path, found: list[Found]) -> None:
    fresh = path.with_name(f"{path.name}.erased.tmp")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        replace_file(fresh, _pieces(text, found))
    with chain.removing:
        try:
            status = path.stat()
        except FileNotFoundError:  # removed for its age meanwhile
            fresh.unlink()
            return
        os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))  # how old it is counts for its removal
        fresh.replace(path)


def _pieces(text: mmap.mmap, found: list[Found]) -> Iterator[bytes]:
    """The text of a file, with lines that are empty of what was found."""
    end = 0
    for each in found:
        yield text[end : each.start]
        yield each.line.without_record().text()
        end = each.end
    yield text[end:]


def erase_alone(chain: ChainFolder, request: Request, now: float) -> int:
    """The same for a chain that no gateway adds to.

    Raises:
        OSError: as for `erase`.
        DocumentError: likewise.

    """
    if chain.has_lines:
        chain.rotate()

    def tell(kind: Kind, content: bytes) -> None:
        chain.append([(kind, content)])
        chain.sync()

    return erase(chain, request, tell, now)
