"""A throw-away CA, the proxies' certificate and two callers' SVIDs, by `phoenixflight certs dev`."""

from __future__ import annotations

from pathlib import Path

from bench.process import run, script

PLANNER = "spiffe://mesh.local/ns/agents/sa/planner"
"""The caller that policy lets in, with ``planner.pem`` and ``planner-key.pem``."""
_SVIDS = {"planner": "/ns/agents/sa/planner", "stranger": "/ns/agents/sa/stranger"}
"""The stranger has a good certificate, and no policy speaks for it."""


def mint(folder: Path) -> None:
    """Write ``ca.pem`` and, for gateway, planner and stranger, ``NAME.pem`` and ``NAME-key.pem`` (ECDSA P-256).

    Raises:
        BenchFailure: the command failed.

    """
    svids = [argument for name, path in _SVIDS.items() for argument in ("--svid", f"{name}={path}")]
    run([script("phoenixflight"), "certs", "dev", "--out", str(folder), *svids], core=None)
