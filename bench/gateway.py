"""PhoenixFlight itself, as `phoenixflight run` starts it, with the parts of the `[fast]` extra."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from bench.certs import EXECUTOR, PLANNER
from bench.process import script
from bench.proxy import Kind, Site

MANY_RULES = 2_000
_RULES_OF_A_POLICY = 100
MANY_AGENTS = 5_000

_API = "phoenixflight.io/v1"
_MANY_CONNECTIONS = {"headersTimeout": "120s", "handshakesPerSecond": 10_000, "maxConnectionsPerAddress": 20_000}
"""Thousands of connections are made one after the other, from one address, before the first is used."""


def prepare(
    site: Site,
    *,
    executable: Path | None = None,
    told: bool = True,
    secure: bool = False,
    rules: int = 1,
    agents: int | None = None,
    workers: int = 1,
    shared: bool = False,
) -> list[str]:
    """Write configuration, policies and members; give the command line.

    Args:
        site: where.
        executable: of another build.
        told: whether there are traces, access log and flight recorder.
        secure: whether agents are reached by mTLS.
        rules: in all policies, of which the last is the planner's.
        agents: how many, if not one for each port.
        workers: processes.
        shared: whether leases are kept in Redis, as those of several replicas are.

    """
    config = site.folder / "config"  # apart from the logs: it is watched for changes
    (config / "policies").mkdir(parents=True)
    gateway: dict[str, object] = {
        "identity": {
            "certificate": str(site.certs / "gateway.pem"),
            "key": str(site.certs / "gateway-key.pem"),
            "trustBundle": str(site.certs / "ca.pem"),
        },
        "listeners": [{"name": "mesh", "address": f"127.0.0.1:{site.port}", "clientAuth": "require"}],
        "admin": {"address": f"127.0.0.1:{site.admin}"},
        "limits": _MANY_CONNECTIONS,
        "policies": "policies",
        "members": "agents.yaml",
        "telemetry": _telemetry(site) if told else {"accessLog": "none"},
    }
    if told:
        gateway["recorder"] = {"folder": str(site.folder / "records")}
    if shared:
        gateway |= {"workers": workers, "redis": {"url": f"redis://127.0.0.1:{site.redis}/0"}}
    _write(config / "gateway.yaml", "Gateway", gateway)
    _write(config / "agents.yaml", "AgentList", {"agents": _agents(site, agents, secure=secure)})
    others = [
        {"name": f"team-{number}", "effect": "allow", "from": [f"spiffe://mesh.local/ns/team-{number}/sa/*"]}
        for number in range(1, rules)
    ]
    all_rules = [*others, {"name": "planners", "effect": "allow", "from": [PLANNER + "*"]}]
    for number, first in enumerate(range(0, rules, _RULES_OF_A_POLICY), start=1):
        spec = {"capabilities": ["code.*"], "rules": all_rules[first : first + _RULES_OF_A_POLICY]}
        _write(config / "policies" / f"code-execution-{number:03}.yaml", "TrustPolicy", spec)
    command = str(executable) if executable is not None else script("phoenixflight")
    return [command, "run", "--config", str(config / "gateway.yaml")]


def another(executable: Path) -> Kind:
    """Another build of the gateway, to be compared with this one."""
    return Kind("another", f"{executable}", partial(prepare, executable=executable), GATEWAY.metrics_path)


def _telemetry(site: Site) -> dict[str, object]:
    return {
        "accessLog": str(site.access_log),
        "tracing": {"otlpEndpoint": f"http://127.0.0.1:{site.otlp}/v1/traces", "sampleRatio": 0.01},
    }


def _agents(site: Site, count: int | None, *, secure: bool) -> list[dict[str, object]]:
    ports = site.tls_agents if secure else site.agents
    found = []
    for number in range(count or len(ports)):
        # Many agents have an address each of the loopback network, which is all one machine.
        host = f"127.1.{number // 250}.{number % 250 + 1}" if count else "127.0.0.1"
        agent = {
            "name": f"executor-{number + 1}",
            "address": f"{host}:{ports[number % len(ports)]}",
            "capabilities": ["code.execute", "lang.python"],
            "trust": 0.9,
            "protocol": "http/1.1",
        }
        found.append(agent | {"spiffeId": EXECUTOR} if secure else agent)
    return found


def _write(path: Path, kind: str, spec: dict[str, object]) -> None:
    document = {"apiVersion": _API, "kind": kind, "metadata": {"name": path.stem}, "spec": spec}
    # In one line: thousands of agents are to fit into the size that a document may have.
    path.write_text(yaml.safe_dump(document, sort_keys=False, default_flow_style=True, width=2**20))


GATEWAY = Kind("ours", "PhoenixFlight", prepare, metrics_path="/metrics")
"""With everything on: metrics, one trace in a hundred, access log, flight recorder."""
UNTOLD = replace(GATEWAY, name="off", prepare=partial(prepare, told=False), logs=False)
"""No traces, no access log, no recorder; metrics cannot be turned off."""
SECURE = replace(GATEWAY, name="ours-mtls", prepare=partial(prepare, secure=True))
"""The agents are reached by mTLS."""
RULES = replace(GATEWAY, name="rules", prepare=partial(prepare, rules=MANY_RULES))
AGENTS = replace(GATEWAY, name="agents", prepare=partial(prepare, agents=MANY_AGENTS))
STREAMS = replace(GATEWAY, name="streams")
"""Which has many streams open while it is measured."""
SHARED = replace(GATEWAY, name="shared", prepare=partial(prepare, shared=True))
WORKERS = (
    replace(SHARED, name="one-worker", one_core=False),
    replace(GATEWAY, name="two-workers", prepare=partial(prepare, workers=2, shared=True), one_core=False),
)
"""With leases in Redis, too."""
