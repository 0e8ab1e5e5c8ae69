"""The documentation's catalogue of metrics is what a running gateway exports, and the other way round."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.contexts import new_key
from tests.conformance.test_http1 import answer_each, talk
from tests.conftest import (
    CAPABILITY,
    POLICY,
    RawAgent,
    RunningGateway,
    StartGateway,
    launch,
    member,
    write_agents,
    write_policy,
)
from tests.fleet import numbers
from tests.redis_server import RedisServer
from tests.telemetry.catalogue import catalogue, scraped
from tests.waiting import eventually, free_port

OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}
ELSEWHERE = {
    "phoenixflight_token_exchanges_total",
    "phoenixflight_worker_restarts_total",
    "phoenixflight_workers_up",
}
"""What a gateway of one worker, or without an authority, does not export."""
RARE = {
    "phoenixflight_budget_refunded_total",
    "phoenixflight_budget_refusals_total",
    "phoenixflight_budget_reserved_total",
    "phoenixflight_budget_spent_total",
    "phoenixflight_brokered_secrets_total",
    "phoenixflight_connection_clocks_total",
    "phoenixflight_credentials_total",
    "phoenixflight_lines_suppressed_total",
    "phoenixflight_migrations_total",
    "phoenixflight_shed_total",
    "phoenixflight_token_fetches_total",
    "phoenixflight_watch_age_seconds",
}
"""What takes long, a Kubernetes, a budget or a credential to have samples."""


def scrape(gateway: RunningGateway) -> httpx.Response:
    url = f"http://127.0.0.1:{gateway.admin_port}/metrics"
    return httpx.get(url, headers=OPENMETRICS, timeout=10, trust_env=False)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, certs: Path) -> Iterator[RunningGateway]:
    """One to which much has happened."""
    agent = RawAgent(answer_each)
    members = [member(agent.port), member(free_port(), "executor-2")]
    key = tmp_path_factory.mktemp("keys") / "context-key"
    key.write_text(new_key())
    gateway = launch(
        tmp_path_factory.mktemp("busy"),
        certs,
        members,
        ledger={"capabilities": ["once.*"]},
        recorder={"folder": "recorder"},
        contexts={"folder": "contexts", "keys": [str(key)]},
        telemetry={
            "accessLog": "access.log",
            "tracing": {"otlpEndpoint": f"http://127.0.0.1:{free_port()}/v1/traces", "sampleRatio": 1},
        },
        health={"outlier": {"maxEjectedShare": 1}},
    )
    try:
        live(gateway, members)
        yield gateway
    finally:
        gateway.stop()
        agent.close()


SHADOW = {
    "mode": "shadow",
    "capabilities": ["*"],
    "rules": [{"name": "nobody", "effect": "deny", "from": ["spiffe://mesh.local"]}],
}


def live(gateway: RunningGateway, members: list[dict[str, Any]]) -> None:
    """Have something happen of everything that is quick to bring about."""
    write_policy(gateway.folder, "shadow", {**POLICY, "metadata": {"name": "shadow"}, "spec": SHADOW})
    eventually(lambda: gateway.admin("/status").json()["files"] and "shadow" in gateway.admin("/snapshot").text)
    with gateway.client() as client:
        for number in range(20):
            client.get("/run", headers={**CAPABILITY, "flight-conversation": f'"c-{number}"'})
        client.post("/run", headers={"flight-capability": "once.more"})
        client.delete("/members/nobody")
        write_agents(gateway.folder, [*members, {**members[0], "name": "executor-3"}])
        eventually(lambda: "executor-3" in gateway.admin("/snapshot").text)
        client.get("/run", headers=CAPABILITY)
    with socket.create_connection(("127.0.0.1", gateway.tls_port)) as plaintext:
        plaintext.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plaintext.recv(1)
    talk(gateway, b"nonsense\r\n\r\n")


def test_every_metric_is_in_the_catalogue_with_its_type_and_its_labels(gateway: RunningGateway) -> None:
    documented = {name: family for name, family in catalogue().items() if name not in ELSEWHERE}
    found = scraped(scrape(gateway).text)
    assert found.keys() == documented.keys()
    assert {name for name, family in found.items() if family is None} <= RARE
    assert {name: family for name, family in found.items() if family} == {
        name: documented[name] for name, family in found.items() if family
    }


def test_what_is_scraped_in_plain_text_is_the_same(gateway: RunningGateway) -> None:
    plain = gateway.admin("/metrics")
    exact = scrape(gateway)
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert exact.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"

    def handoffs(text: str) -> dict[str, float]:
        return numbers(text, "phoenixflight_handoffs_total")

    assert handoffs(plain.text) == handoffs(exact.text) != {}
    assert "# TYPE phoenixflight_handoffs_total counter" in plain.text
    assert "# TYPE phoenixflight_handoffs counter" in exact.text


def test_several_workers_export_the_same_and_what_is_known_of_them(
    raw_agent, start_gateway: StartGateway, redis: RedisServer
) -> None:
    gateway = start_gateway([member(raw_agent(answer_each).port)], workers=2, redis={"url": redis.url})
    found = scraped(scrape(gateway).text)
    missing = {
        name
        for name in catalogue().keys() - found.keys()
        if not any(part in name for part in ("_recorder_", "_ledger_", "_budget_", "_contexts_", "_token_exchanges_"))
    }
    assert missing == set()
    assert found.keys() <= catalogue().keys()
