"""Agents and callers that do it wrong: what the other side is told, and that nothing of it is left behind."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.faults import callers, http1_agents, http2_agents
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
    with caller.stream(
        "POST", f"/{name}", headers=packet(capability, number, fault.timeout_ms), content=body
    ) as answer:
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
    assert not fault.reason or recorded["reason"] == fault.reason, recorded
    assert (recorded["outcome"] == "completed") == (whole and not problem), recorded
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


def open_descriptors(gateway: RunningGateway) -> int:
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


@pytest.mark.parametrize("name", callers.FAULTS)
def test_a_caller_that_does_it_wrong_leaves_nothing_behind(gateway: RunningGateway, name: str) -> None:
    began = time.monotonic()
    callers.FAULTS[name](gateway)
    with gateway.client() as polite:
        polite.post("/fine", headers=packet("fault.http1", f"beside-{time.monotonic_ns()}")).raise_for_status()
    assert time.monotonic() - began < 4 * HEALTHY_S
    eventually(lambda: in_flight(gateway) == 0)


@pytest.mark.slow
def test_after_every_fault_descriptors_and_memory_are_as_before(
    gateway: RunningGateway,
) -> None:
    def everything() -> None:
        with gateway.client(http2=True) as client:
            for capability, faults in (("fault.http1", http1_agents.FAULTS), ("fault.http2", http2_agents.FAULTS)):
                for name, fault in faults.items():
                    fields = packet(capability, f"{name}-{time.monotonic_ns()}", fault.timeout_ms)
                    with contextlib.suppress(httpx.TransportError):
                        client.post(f"/{name}", headers=fields, content=b"job")
        for act in callers.FAULTS.values():
            act(gateway)

    everything()
    eventually(lambda: in_flight(gateway) == 0)
    time.sleep(2.5)  # what is unused is closed after half a second, by a sweep each second
    descriptors, memory = open_descriptors(gateway), gateway.rss_bytes()
    everything()
    eventually(lambda: in_flight(gateway) == 0)
    # Asking the admin port would open more, which a busy machine is slow to close.
    eventually(lambda: open_descriptors(gateway) <= descriptors + 2)
    assert gateway.rss_bytes() - memory < 16 * 1024 * 1024
    assert numbers(gateway.admin("/metrics").text, "phoenixflight_defects_total") == {"": 0}
