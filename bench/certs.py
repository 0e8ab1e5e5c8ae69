"""A throw-away CA, the proxies' certificate, two callers' SVIDs and the agents', by `phoenixflight certs dev`."""

from __future__ import annotations

from pathlib import Path

from bench.process import run, script

PLANNER = "spiffe://mesh.local/ns/agents/sa/planner"
"""The caller that policy lets in, with ``planner.pem`` and ``planner-key.pem``."""
EXECUTOR = "spiffe://mesh.local/ns/agents/sa/executor"
"""The agents, where they are reached by mTLS, with ``executor.pem`` and ``executor-key.pem``."""
_SVIDS = {name: f"/ns/agents/sa/{name}" for name in ("planner", "stranger", "executor")}
"""The stranger has a good certificate, and no policy speaks for it."""


def mint(folder: Path) -> None:
    """Write ``ca.pem`` and, for the gateway and each SVID, ``NAME.pem`` and ``NAME-key.pem`` (ECDSA P-256).

    Raises:
        BenchFailure: the command failed.

    """
    svids = [argument for name, path in _SVIDS.items() for argument in ("--svid", f"{name}={path}")]
    run([script("phoenixflight"), "certs", "dev", "--out", str(folder), *svids], core=None)
