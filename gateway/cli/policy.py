"""``phoenixflight policy``: try policies before they are in force."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.control.files import read_sources, read_text
from gateway.decision import Snapshot
from gateway.documents import Document, DocumentError, Problem, check_kind, parse
from gateway.membership.file import load_agents
from gateway.policy import PolicySet
from gateway.policy.load import load_policies
from gateway.policy_cases import PolicyTest, failures

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


def _documents(paths: list[Path]) -> list[Document]:
    sources = {source: text for path in paths for source, text in read_sources(path).items()}
    documents = [document for source, text in sources.items() for document in parse(text, source)]
    for document in documents:
        check_kind(document, "PolicyTest")
    if not documents:
        raise DocumentError([Problem(str(paths[0]), 1, 1, "no PolicyTest documents are here")])
    return documents


def _snapshot(test: PolicyTest, base: Path) -> Snapshot:
    members = base / test.spec.members
    policies = PolicySet(load_policies(read_sources(base / test.spec.policies)))
    return Snapshot("test", policies, load_agents(read_text(members), str(members)))
