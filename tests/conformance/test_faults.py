"""Agents and callers that do it wrong: what the other side is told, and that nothing of it is left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.faults import http1_agents, http2_agents
from tests.conftest import RawAgent, RunningGateway, launch, member
from tests.fleet import numbers
from tests.waiting import eventually

HEALTHY_S = 1.0
"""How long a well-behaved caller waits at most, whatever others do; as long again is allowed for a busy machine."""
UNHEALTH = {"outlier": {"maxEjectedShare": 0.0}}
"""Nobody is ejected: the faults are to reach callers."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, certs: Path) -> Iterator[RunningGateway]:
    """A gateway before agents that fail as they are asked to."""
    agents = [RawAgent(http1_agents.serve), RawAgent(http2_agents.serve)]
    members = [
        member(agents[0].port, "over-http1", capabilities=["fault.http1"]),
        member(agents[1].port, "over-http2", capabilities=["fault.http2"], protocol="h2c"),
    ]
    limits = {"upstreamIdleTimeout": "500ms"}
    running = launch(tmp_path_factory.mktemp("faults"), certs, members, health=UNHEALTH, limits=limits)
    yield running
    running.stop()
    for agent in agents:
        agent.close()


@pytest.fixture(scope="module", params=[False, True], ids=["http1-caller", "http2-caller"])
def caller(request: pytest.FixtureRequest, gateway: RunningGateway) -> Iterator[httpx.Client]:
    with gateway.client(http2=request.param) as client:
        yield client


def in_flight(gateway: RunningGateway) -> float:
    return numbers(gateway.admin("/metrics").text, "phoenixflight_handoffs_in_flight")[""]


def packet(capability: str, number: str, timeout_ms: int = 0) -> dict[str, str]:
    fields = {"flight-capability": capability, "flight-id": f'"{number}"'}
    return fields | ({"flight-timeout": str(timeout_ms)} if timeout_ms else {})


def ask(
    gateway: RunningGateway,
    caller: httpx.Client,
    capability: str,
    name: str,
    fault: http1_agents.Fault | http2_agents.Fault,
) -> None:
    """Meet a fault, and check what is told of it; then see that the next packet is served as ever."""
    statuses = fault.statuses if isinstance(fault, http2_agents.Fault) else (fault.status,)
    body = fault.body if isinstance(fault, http2_agents.Fault) else b"job"
    number = f"{name}-{time.monotonic_ns()}"
    whole = True
    problem: dict[str, Any] = {}
    with caller.stream("POST", f"/{name}", headers=packet(capability, number, fault.timeout_ms), content=body) as answer:
        assert answer.status_code in statuses, (answer.status_code, answer.read())
        try:
            answer.read()
        except httpx.TransportError:
            whole = False
        else:
            if answer.status_code >= 300:
                problem = answer.json()
    assert whole == fault.whole
    if fault.reason and whole:
        assert problem["type"] == f"urn:phoenixflight:{fault.reason}", problem
    recorded = gateway.handoff(flight_id=number)
    if fault.reason:
        assert recorded["reason"] == fault.reason, recorded
    else:
        assert recorded["outcome"] == ("completed" if recorded["status"] < 300 and fault.whole else "refused") or not (
            fault.whole
        )
    began = time.monotonic()
    after = caller.post("/fine", headers=packet(capability, f"{number}-after"), content=b"job")
    assert (after.status_code, after.text) == (200, "ok")
    assert time.monotonic() - began < 2 * HEALTHY_S


@pytest.mark.parametrize("name", http1_agents.FAULTS)
def test_a_fault_over_http1_is_told_to_its_caller_only(
    gateway: RunningGateway, caller: httpx.Client, name: str
) -> None:
    ask(gateway, caller, "fault.http1", name, http1_agents.FAULTS[name])


@pytest.mark.parametrize("name", http2_agents.FAULTS)
def test_a_fault_over_http2_is_told_to_its_caller_only(
    gateway: RunningGateway, caller: httpx.Client, name: str
) -> None:
    ask(gateway, caller, "fault.http2", name, http2_agents.FAULTS[name])
