"""A real Prometheus scrapes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, StartGateway, eventually, free_port, member


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus: see tools/test-deps")
def test_prometheus_scrapes_the_gateway(raw_agent, start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = start_gateway([member(raw_agent(answer_each).port)])
    with gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY).status_code == 200
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "scrape_configs:\n- job_name: gateway\n  scrape_interval: 1s\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{gateway.admin_port}']}}]\n"
    )
    port = free_port()
    prometheus = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:

        def scraped() -> list[dict[str, object]]:
            query = "phoenixflight_handoffs_total{outcome='completed'}"
            try:
                response = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, trust_env=False)
            except httpx.TransportError:
                return []
            return response.json()["data"]["result"] if response.status_code == 200 else []

        (series,) = eventually(scraped, 30)
        assert series["metric"]["agent"] == "executor-1"
        assert series["value"][1] == "1"
    finally:
        prometheus.terminate()
        prometheus.wait(10)
