"""The entry point of ``phoenixflight``.

Probes run it every few seconds, so that they are answered before the rest of the command line is loaded, which takes
about a second of a core.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name."""
    if sys.argv[1:2] == ["health"]:
        from gateway import probe

        sys.exit(probe.main(sys.argv[2:]))
    from gateway import cli

    cli.main()
