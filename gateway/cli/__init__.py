"""The command line: ``phoenixflight``.  One module a command group."""

from __future__ import annotations

import typer

from gateway.cli.approvals import app as approvals
from gateway.cli.certs import app as certs
from gateway.cli.check import check
from gateway.cli.contexts import app as contexts
from gateway.cli.demo import demo
from gateway.cli.explain import explain
from gateway.cli.health import RAW, health
from gateway.cli.packet import app as packet
from gateway.cli.policy import app as policy
from gateway.cli.recorder import app as recorder
from gateway.cli.revoke import revoke
from gateway.cli.ring import app as ring
from gateway.cli.run import run
from gateway.cli.status import status
from gateway.cli.top import top

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.command()(run)
app.command()(check)
app.command()(explain)
app.command()(status)
app.command()(top)
app.command()(revoke)
app.command(context_settings=RAW)(health)
app.command()(demo)
app.add_typer(approvals, name="approvals")
app.add_typer(certs, name="certs")
app.add_typer(contexts, name="contexts")
app.add_typer(packet, name="packet")
app.add_typer(policy, name="policy")
app.add_typer(recorder, name="recorder")
app.add_typer(ring, name="ring")


def main() -> None:
    """The entry point of ``phoenixflight``."""
    app()
