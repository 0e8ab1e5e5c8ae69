"""PhoenixFlight itself, as `phoenixflight run` starts it, with the parts of the `[fast]` extra."""

from __future__ import annotations

from pathlib import Path

import yaml

from bench.certs import PLANNER
from bench.process import script
from bench.proxy import Kind, Site

_API = "phoenixflight.io/v1"


_MANY_CONNECTIONS = {"headersTimeout": "120s", "handshakesPerSecond": 10_000, "maxConnectionsPerAddress": 20_000}
"""Thousands of connections are made one after the other, from one address, before the first is used."""


def prepare(site: Site) -> list[str]:
    """Write configuration, policy and members; give the command line."""
    return _prepare(site, script("phoenixflight"), _MANY_CONNECTIONS)


def another(executable: Path) -> Kind:
    """Another build of the gateway, to be compared with this one; it may be one that knows fewer settings."""
    return Kind(
        "another", f"{executable}", lambda site: _prepare(site, str(executable), {}), GATEWAY.metrics_path, GATEWAY.rate
    )


def _prepare_everything(site: Site) -> list[str]:
    return _prepare(site, script("phoenixflight"), {}, {"recorder": {"folder": str(site.folder / "records")}})


def _prepare_nothing(site: Site) -> list[str]:
    return _prepare(site, script("phoenixflight"), {}, {"telemetry": {"accessLog": "none"}})


def _prepare(
    site: Site, executable: str, limits: dict[str, object], more: dict[str, object] | None = None
) -> list[str]:
    gateway: dict[str, object] = {
        "identity": {
            "certificate": str(site.certs / "gateway.pem"),
            "key": str(site.certs / "gateway-key.pem"),
            "trustBundle": str(site.certs / "ca.pem"),
        },
        "listeners": [{"name": "mesh", "address": f"127.0.0.1:{site.port}", "clientAuth": "require"}],
        "admin": {"address": f"127.0.0.1:{site.admin}"},
        "limits": limits,
        "policies": "policies",
        "members": "agents.yaml",
        "telemetry": {
            "accessLog": str(site.access_log),
            "tracing": {"otlpEndpoint": f"http://127.0.0.1:{site.otlp}/v1/traces", "sampleRatio": 0.01},
        },
    } | (more or {})
    agents = [
        {
            "name": f"executor-{number}",
            "address": f"127.0.0.1:{port}",
            "capabilities": ["code.execute", "lang.python"],
            "trust": 0.9,
            "protocol": "http/1.1",
        }
        for number, port in enumerate(site.agents, start=1)
    ]
    policy = {
        "capabilities": ["code.*"],
        "rules": [{"name": "planners", "effect": "allow", "from": [PLANNER + "*"]}],
    }
    config = site.folder / "config"  # apart from the logs: it is watched for changes
    (config / "policies").mkdir(parents=True)
    _write(config / "gateway.yaml", "Gateway", gateway)
    _write(config / "agents.yaml", "AgentList", {"agents": agents})
    _write(config / "policies" / "code-execution.yaml", "TrustPolicy", policy)
    return [executable, "run", "--config", str(config / "gateway.yaml")]


def _write(path: Path, kind: str, spec: dict[str, object]) -> None:
    document = {"apiVersion": _API, "kind": kind, "metadata": {"name": path.stem}, "spec": spec}
    path.write_text(yaml.safe_dump(document, sort_keys=False))


GATEWAY = Kind("ours", "PhoenixFlight", prepare, metrics_path="/metrics", rate=500)
EVERYTHING = Kind("on", "PhoenixFlight, everything on", _prepare_everything, GATEWAY.metrics_path, GATEWAY.rate)
"""The flight recorder, too."""
NOTHING = Kind("off", "PhoenixFlight, everything off", _prepare_nothing, GATEWAY.metrics_path, GATEWAY.rate)
"""No traces, no access log, no recorder."""
