"""A real Prometheus scrapes a gateway, keeps its exemplars, evaluates the rules, and tells when agents die."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, RunningGateway, StartGateway, member
from tests.fleet import Worker, start, stop
from tests.telemetry.catalogue import ROOT
from tests.waiting import eventually, free_port

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus: see tools/test-deps")


class Prometheus:
    """One that scrapes each second, with the rules of the project; alerts do not wait."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        for name in ("recording.yaml", "alerts.yaml"):
            text = (ROOT / "observability" / "prometheus" / name).read_text()
            (folder / name).write_text(re.sub(r"^( +for:) .*$", r"\1 0s", text, flags=re.MULTILINE))
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["recording.yaml", "alerts.yaml"],
            "scrape_configs": [
                {"job_name": "phoenixflight-gateway", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--enable-feature=exemplar-storage",
            ],
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of its answer; nothing while it does not give any."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/api/v1/{path}", params=parameters, trust_env=False)
        except httpx.TransportError:
            return None
        return answer.json()["data"] if answer.status_code == 200 else None

    def query(self, expression: str) -> list[dict[str, Any]]:
        return (self.ask("query", query=expression) or {"result": []})["result"]

    def firing(self) -> list[dict[str, Any]]:
        """The alerts that fire."""
        alerts = (self.ask("alerts") or {"alerts": []})["alerts"]
        return [each for each in alerts if each["state"] == "firing"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Any]:
    """Starts them."""
    started: list[Prometheus] = []

    def make(gateway: RunningGateway) -> Prometheus:
        started.append(Prometheus(tmp_path, gateway.admin_port))
        return started[-1]

    yield make
    for each in started:
        each.stop()


def test_prometheus_scrapes_the_gateway(raw_agent, start_gateway: StartGateway, prometheus) -> None:
    gateway = start_gateway([member(raw_agent(answer_each).port)])
    with gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
    scraping = prometheus(gateway)
    (series,) = eventually(lambda: scraping.query("phoenixflight_handoffs_total{outcome='completed'}"), 30)
    assert series["metric"]["agent"] == "executor-1"
    assert series["value"][1] == "1"


def test_prometheus_keeps_the_traces_of_sampled_handoffs(raw_agent, start_gateway: StartGateway, prometheus) -> None:
    tracing = {"otlpEndpoint": f"http://127.0.0.1:{free_port()}/v1/traces", "sampleRatio": 0}
    gateway = start_gateway(
        [member(raw_agent(answer_each).port)], telemetry={"accessLog": "access.log", "tracing": tracing}
    )
    trace = "0af7651916cd43dd8448eb211c80319c"
    with gateway.client() as client:
        client.post("/run", headers={**CAPABILITY, "traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        client.post("/run", headers={**CAPABILITY, "traceparent": f"00-{'1' * 32}-b7ad6b7169203331-00"})
    scraping = prometheus(gateway)
    query = "phoenixflight_handoff_duration_seconds_bucket"
    (series,) = eventually(
        lambda: scraping.ask("query_exemplars", query=query, start="2026-01-01T00:00:00Z", end="2099-01-01T00:00:00Z"),
        30,
    )
    assert [each["labels"] for each in series["exemplars"]] == [{"trace_id": trace}]
    assert series["seriesLabels"]["capability"] == "code.execute"


@pytest.mark.slow
def test_prometheus_tells_when_agents_die(tmp_path: Path, start_gateway: StartGateway, prometheus) -> None:
    workers = [Worker(tmp_path, f"executor-{number}", settings={"delay_s": 0}) for number in (1, 2)]
    wanted = {"PhoenixFlightAgentsEjected", "PhoenixFlightHighFailureRate"}
    try:
        start(workers)
        gateway = start_gateway([worker.member for worker in workers])
        watching = prometheus(gateway)
        with gateway.client() as client:

            def called() -> set[str]:
                """Which of those fire, after some more packets."""
                for _ in range(10):
                    client.post("/run", headers=CAPABILITY)
                return wanted & {alert["labels"]["alertname"] for alert in watching.firing()}

            eventually(lambda: called() or watching.query("instance:phoenixflight_handoffs:rate5m > 0"), 30)
            assert called() == set()
            for worker in workers:
                worker.kill()
            eventually(lambda: called() == wanted, 60)
        (alert,) = (each for each in watching.firing() if each["labels"]["alertname"] == "PhoenixFlightAgentsEjected")
        assert alert["labels"]["severity"] == "warning"
        assert alert["annotations"]["runbook_url"].endswith("#phoenixflightagentsejected")
    finally:
        stop(workers)
