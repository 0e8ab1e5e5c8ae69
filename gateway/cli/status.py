"""``phoenixflight status``: whether a running gateway is ready, and what is not as it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import typer

from gateway.cli.admin import (
    DEFAULT_ADMIN,
    AdminOption,
    CaOption,
    CertOption,
    KeyOption,
    TokenOption,
    asked,
    connected,
)

MAX_TOLD = 10


def status(
    admin: AdminOption = DEFAULT_ADMIN,
    token_file: TokenOption = None,
    cacert: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Tell in short how a running gateway is.  Exit 0: it is ready.  1: it is not, or is silent.  2: a mistake."""
    client = connected(admin, token_file, cacert, cert, key)
    with client:
        try:
            ready = client.get("/readyz")
            typer.echo(ready.text.strip())
            for line in _told(asked(client, "/status"), asked(client, "/members")["members"]):
                typer.echo(line)
        except httpx.HTTPError as error:
            typer.echo(f"{admin}: {error}", err=True)
            raise typer.Exit(1) from None
    if not ready.is_success:
        raise typer.Exit(1)


def _told(status: dict[str, Any], members: list[dict[str, Any]]) -> Iterator[str]:
    workers = [each for each in status.get("workers", []) if each["status"]]
    whole = [each["status"] for each in workers] or [status]
    since = f", since {whole[0]['since']}" if "since" in whole[0] else ""
    yield f"version {status['version']}, revision {status['revision'] or 'not the same in all workers'}{since}"
    if "workers" in status:
        restarts = sum(each["restarts"] for each in status["workers"])
        yield f"workers: {len(workers)} of {len(status['workers'])} answer, {restarts} were replaced"
    if not status["in_step_with_files"]:
        refused = next((each["last_refused"] for each in whole if each.get("last_refused")), None)
        yield f"the files are not in force: refused at {refused['at']}" if refused else "the files are not in force"
        for problem in (refused or {}).get("problems", [])[:MAX_TOLD]:
            yield f"  {problem}"
    if status["needs_restart"]:
        yield f"needs a restart: {', '.join(status['needs_restart'])}"
    counts = Counter(each["state"] for each in members)
    yield f"members: {', '.join(f'{count} {state}' for state, count in counts.most_common()) or 'none'}"
    unwell = [each for each in members if each["why"]]
    for each in unwell[:MAX_TOLD]:
        yield f"  {each['name']}: {each['state']}: {each['why']}"
    if len(unwell) > MAX_TOLD:
        yield f"  and {len(unwell) - MAX_TOLD} more"
    yield f"in flight: {sum(each['in_flight'] for each in members)}"
