"""``phoenixflight recorder``: what the flight recorder has, and whether it is what was written."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from gateway.documents import DocumentError
from gateway.packet.keys import Key
from gateway.recorder import Reader, Record, RecorderSpec
from gateway.recorder.erase import Request, erase_alone
from gateway.recorder.folder import FolderReport, verify_folder
from gateway.recorder.heads import Signer, load_signer, load_verifier
from gateway.recorder.line import Position
from gateway.recorder.segments import ChainFolder, InUseError, chains_in

app = typer.Typer(no_args_is_help=True, help=__doc__)

FolderArgument = Annotated[Path, typer.Argument(help="spec.recorder.folder, or the folder of one chain in it.")]
LOOK_S = 0.1


@app.command()
def verify(
    folder: FolderArgument,
    key: Annotated[list[Path], typer.Option(help="A public key in PEM; any of those given may have signed.")] = [],  # noqa: B006
    head: Annotated[list[str], typer.Option(help="CHAIN-FOLDER:SEQUENCE:HASH, as it was noted at some time.")] = [],  # noqa: B006
) -> None:
    """Find out whether the records are those that were written.

    Exit 1: something was changed or is missing; the first such line is told.  Exit 2: the folder cannot be read.
    """
    try:
        keys = [_public(path) for path in key]
        reports = verify_folder(folder, keys, [_anchor(text) for text in head])
    except (OSError, ValueError) as error:
        _stop(str(error), 2)
    for each in reports:
        typer.echo(f"{each.chain.name}: {_summary(each, bool(keys))}")
    flaws = [each.report.flaw for each in reports if each.report.flaw is not None]
    for flaw in flaws:
        typer.echo(str(flaw), err=True)
    if flaws:
        raise typer.Exit(1)


def _public(path: Path) -> Key:
    try:
        return load_verifier(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}:1:1: {error}") from None


def _anchor(text: str) -> tuple[str, Position]:
    chain, _, rest = text.partition(":")
    sequence, _, digest = rest.partition(":")
    if not (sequence.isdecimal() and digest):
        raise ValueError(f"--head {text}: expected CHAIN-FOLDER:SEQUENCE:HASH")
    return chain, Position(int(sequence), digest)


def _summary(found: FolderReport, checked: bool) -> str:
    report = found.report
    parts = [f"{report.records} records in {report.files} files, up to sequence {report.end.sequence}"]
    if report.erased:
        parts.append(f"{report.erased} erased")
    if report.removed_through:
        parts.append(f"those up to sequence {report.removed_through} removed for age or room")
    if report.lost:
        parts.append(f"{report.lost} lost, as the gateway tells itself")
    if report.torn_bytes:
        parts.append(f"{report.torn_bytes} bytes of a line at the end that is not whole")
    if report.last_signed is not None:
        how = "signatures hold" if checked else "signatures not checked, for want of --key"
        parts.append(f"signed up to sequence {report.last_signed.sequence} ({report.last_signed.time}), {how}")
    return f"{'FAILED' if report.flaw else 'ok'}: {'; '.join(parts)}"


@app.command()
def show(
    folder: FolderArgument,
    task: Annotated[str, typer.Option(help="The packets of this task.")] = "",
    conversation: Annotated[str, typer.Option(help="The packets of this conversation.")] = "",
    packet: Annotated[str, typer.Option(help="The packet with this id.")] = "",
) -> None:
    """Tell of packets, children below their parents.  Exit 1: there are none.  Exit 2: something cannot be read."""
    if not (task or conversation or packet):
        _stop("which ones?  Give --task, --conversation or --packet", 2)
    try:
        found = list(Reader(folder).records(task=task, conversation=conversation, flight_id=packet))
    except (OSError, DocumentError) as error:
        _stop(str(error), 2)
    if not found:
        _stop("nothing is recorded of it, or it was erased, or removed for its age", 1)
    for depth, record in _tree(found):
        typer.echo("  " * depth + _told(record))


def _tree(records: list[Record]) -> Iterator[tuple[int, Record]]:
    """The records, each behind its parent, and how deep it stands."""
    children: dict[str, list[Record]] = {}
    known = {each.flight_id for each in records}
    for each in records:
        parent = each.parent if each.parent in known and each.parent != each.flight_id else ""
        children.setdefault(parent, []).append(each)
    stack = [(0, each) for each in reversed(children.pop("", []))]
    while True:
        while stack:
            depth, each = stack.pop()
            yield depth, each
            stack += [(depth + 1, child) for child in reversed(children.pop(each.flight_id, []))]
        if not children:
            return
        stack = [(0, each) for each in reversed(children.pop(next(iter(children))))]  # each other's parents


def _told(record: Record) -> str:
    time_ = record.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rule = f"{record.policy}/{record.rule}" if record.policy else ""
    details = [
        f"by {rule}" if rule else "",
        record.reason,
        str(record.status or ""),
        f"{record.attempts} attempts" if record.attempts > 1 else "",
        f"of {record.eligible_count} agents" if record.eligible_count else "",
        f"budget {record.budget}" if record.budget else "",
        f"reserved {record.reserved}" if record.reserved else "",
        f"spent {record.usage}" if record.usage else "",
        f"{record.duration_ms:g} ms" if record.duration_ms else "",
    ]
    way = f"{record.caller} -> {record.agent or '-'}"
    more = ", ".join(each for each in details if each)
    return f"{time_} {record.outcome.value} {record.flight_id} {way} {record.capability} ({more})"


@app.command()
def export(
    folder: FolderArgument,
    out: Annotated[Path | None, typer.Option(help="The file to write; else standard output.")] = None,
) -> None:
    """Write the records, one in each line, as JSON.  Exit 2: something cannot be read or written."""
    encode = msgspec.json.Encoder().encode
    try:
        lines = (encode(record) + b"\n" for record in Reader(folder).records())
        if out is None:
            sys.stdout.buffer.writelines(lines)
        else:
            with out.open("wb") as file:
                file.writelines(lines)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, DocumentError) as error:
        _stop(str(error), 2)


@app.command()
def erase(
    folder: FolderArgument,
    conversation: Annotated[str, typer.Option(help="What has to go.")],
    wait: Annotated[float, typer.Option(help="Seconds to wait for running gateways to do it.")] = 60.0,
    key: Annotated[Path | None, typer.Option(help="spec.recorder.key, where there is one and no gateway runs.")] = None,
) -> None:
    """Take the records of a conversation out, for good; the chain can be verified as before.

    What agents keep of it is erased with ``phoenixflight contexts erase``.

    Exit 1: a gateway that runs has not done it in time, and will.  Exit 2: something cannot be read or written.
    """
    request = Request(uuid.uuid4().hex, conversation)
    waiting: list[Path] = []
    try:
        signer = load_signer(key.read_bytes()) if key is not None else None
        for chain in chains_in(folder):
            count = _erased_in(chain, request, signer)
            if count is None:
                waiting.append(request.leave_in(chain))
            else:
                typer.echo(f"{chain.name}: {count} records erased")
    except (OSError, ValueError, DocumentError) as error:
        _stop(str(error), 2)
    deadline = time.monotonic() + wait
    for path in waiting:
        while path.exists():
            if time.monotonic() > deadline:
                _stop(f"{path.parent.name}: the gateway has not done it yet, and goes on trying: see {path}", 1)
            time.sleep(LOOK_S)
        typer.echo(f"{path.parent.name}: done by the gateway")


def _erased_in(folder: Path, request: Request, signer: Signer | None) -> int | None:
    """How many records were erased in a chain; ``None`` when a gateway has it."""
    spec = RecorderSpec(folder=folder)
    try:
        chain = ChainFolder(folder, spec, signer, clock=time.time, entropy=os.urandom)
    except InUseError:
        return None
    try:
        return erase_alone(chain, request, time.time())
    finally:
        chain.close()


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
