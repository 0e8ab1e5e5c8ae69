"""``phoenixflight health``: whether a gateway is well."""

from __future__ import annotations

import typer

from gateway import probe


def health(context: typer.Context) -> None:
    """Ask a running gateway whether it should be sent packets; --help tells the options.

    Exit 0: it is ready, or with --live: its process runs.  1: it is not, and why.
    """
    raise typer.Exit(probe.main(context.args))


RAW = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""The command's context: `probe` reads the arguments itself, for it runs without this command line, too."""
