"""``phoenixflight policy``: try policies before they are in force."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.run import DEFAULT_CONFIG, ConfigOption
from gateway.control.config import load_config
from gateway.control.files import read_sources, read_text
from gateway.decision import Snapshot
from gateway.documents import Document, DocumentError, Problem, check_kind, parse
from gateway.membership.file import load_agents
from gateway.policy import PolicySet
from gateway.policy.load import load_policies
from gateway.policy_cases import PolicyTest, failures
from gateway.recorded import Flip, Recorded
from gateway.recorder import Reader
from gateway.recorder.compose import recorded
from gateway.recording import flip, redecide

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def policy() -> None:
    """Try policies before they are in force."""


@app.command()
def test(
    paths: Annotated[list[Path], typer.Argument(help="PolicyTest files, or folders of them.")],
) -> None:
    """Decide the packets of PolicyTest files.  Exit 1: a case came out otherwise.  Exit 2: a file is not valid."""
    cases = 0
    failed: list[Problem] = []
    try:
        for document in _documents(paths):
            test = document.validate(PolicyTest)
            cases += len(test.spec.cases)
            failed += failures(test, document, _snapshot(test, Path(document.source).parent), time.time())
    except DocumentError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    for problem in failed:
        typer.echo(str(problem))
    typer.echo(f"{cases} cases, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)


@app.command()
def replay(
    recording: Annotated[Path, typer.Option("--from", help="What gateways recorded (spec.recorder.folder).")],
    candidate: Annotated[Path, typer.Option("--with", help="The policies to try: a folder, or a file.")],
    members: Annotated[Path | None, typer.Option(help="The agents.  Default: those of --config.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Decide recorded packets under other policies, and tell which come out otherwise.

    Exit 1: some do.  Exit 2: a file is not valid.
    """
    packets = unjudged = 0
    flips: dict[str, Counter[Flip]] = {}
    try:
        snapshot = _candidate(candidate, members or load_config(config).members)
        for before, after in _redecided(recording, snapshot):
            packets += 1
            unjudged += not before.judged
            flipped = flip(before, after)
            if flipped is not None:
                flips.setdefault(before.caller, Counter())[flipped] += 1
                typer.echo(
                    f"{flipped.value}: {before.flight_id} {before.caller} {before.capability}: "
                    f"{_outcome(before)} -> {_outcome(after)}"
                )
    except DocumentError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    _summarize(packets, unjudged, flips)
    if flips:
        raise typer.Exit(1)


def _redecided(recording: Path, snapshot: Snapshot) -> Iterator[tuple[Recorded, Recorded]]:
    """Each record with what would become of its packet; what policy was never asked about stays as it was."""
    try:
        for record in Reader(recording).records():
            before = recorded(record)
            try:
                yield before, redecide(before, snapshot) if before.judged else before
            except ValueError as error:
                message = f"no record, {before.flight_id}: {error}"
                raise DocumentError([Problem(str(recording), 1, 1, message)]) from None
    except OSError as error:
        raise DocumentError([Problem(str(recording), 1, 1, error.strerror or str(error))]) from None


def _outcome(recorded: Recorded) -> str:
    rule = f"{recorded.policy}/{recorded.rule}"
    if recorded.allow:
        return f"allow by {rule}, to {recorded.agent}"
    return f"refuse ({recorded.reason}{f', by {rule}' if recorded.policy else ''})"


def _summarize(packets: int, unjudged: int, flips: dict[str, Counter[Flip]]) -> None:
    for caller in sorted(flips):
        counts = ", ".join(f"{flips[caller][kind]} {kind.value}" for kind in Flip if flips[caller][kind])
        typer.echo(f"{caller}: {counts}")
    aside = f" ({unjudged} were refused before policy was asked)" if unjudged else ""
    typer.echo(f"{packets} packets{aside}, {sum(count.total() for count in flips.values())} flips")


def _documents(paths: list[Path]) -> list[Document]:
    sources = {source: text for path in paths for source, text in read_sources(path).items()}
    documents = [document for source, text in sources.items() for document in parse(text, source)]
    for document in documents:
        check_kind(document, "PolicyTest")
    if not documents:
        raise DocumentError([Problem(str(paths[0]), 1, 1, "no PolicyTest documents are here")])
    return documents


def _snapshot(test: PolicyTest, base: Path) -> Snapshot:
    return _candidate(base / test.spec.policies, base / test.spec.members)


def _candidate(policies: Path, members: Path) -> Snapshot:
    """What would be in force."""
    compiled = PolicySet(load_policies(read_sources(policies)))
    return Snapshot("candidate", compiled, load_agents(read_text(members), str(members)))
