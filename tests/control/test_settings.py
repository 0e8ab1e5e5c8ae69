"""gateway.yaml changes under a running gateway."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from gateway.control.config import GatewaySpec
from gateway.control.tuning import LIVE, settled
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, ConfigMap, RunningGateway, StartGateway, eventually, member

LISTENER = {"name": "a", "address": "127.0.0.1:1", "tls": False}


def spec(**changes: Any) -> GatewaySpec:
    return GatewaySpec.model_validate({"listeners": [LISTENER], "policies": "p", "members": "m.yaml", **changes})


def test_what_may_change_does_and_the_rest_is_named_as_the_file_has_it() -> None:
    running = spec(telemetry={"tracing": {"otlpEndpoint": "http://a"}})
    wanted = spec(
        listeners=[{**LISTENER, "address": "127.0.0.1:2"}],
        workers=2,
        redis={"url": "redis://localhost"},
        policies="q",
        zone="z",
        limits={"idleTimeout": "5s"},
        telemetry={"maxLines": 5, "tracing": {"otlpEndpoint": "http://b", "sampleRatio": 0.5}},
    )
    spec_, restart = settled(running, wanted)
    assert restart == ("listeners[0].address", "workers", "redis", "telemetry.tracing.otlpEndpoint")
    assert (spec_.policies, spec_.zone, spec_.limits.idle_timeout_s) == (Path("q"), "z", 5.0)
    assert (spec_.listeners, spec_.workers, spec_.redis) == (running.listeners, 1, None)
    assert spec_.telemetry.tracing is not None
    assert (spec_.telemetry.tracing.otlp_endpoint, spec_.telemetry.tracing.sample_ratio) == ("http://a", 0.5)
    assert settled(spec_, wanted).restart == restart  # as long as the file says so


@pytest.mark.parametrize("path", sorted(LIVE))
def test_every_live_setting_is_one(path: str) -> None:
    model: Any = GatewaySpec
    for part in path.split("."):
        annotation = next(info.annotation for info in model.model_fields.values() if info.alias == part)
        model = next((each for each in (annotation, *get_args(annotation)) if hasattr(each, "model_fields")), None)


@pytest.fixture
def mounted(raw_agent, start_gateway: StartGateway) -> Iterator[tuple[RunningGateway, ConfigMap, dict[str, Any]]]:
    """A gateway whose gateway.yaml comes from a ConfigMap."""
    first = start_gateway([member(raw_agent(answer_each).port)])
    first.stop()
    document = yaml.safe_load((first.folder / "gateway.yaml").read_text())
    for name in ("policies", "members"):
        document["spec"][name] = str(first.folder / document["spec"][name])
    document["spec"]["telemetry"]["accessLog"] = str(first.folder / "access.log")
    mount = ConfigMap(first.folder / "settings", {"gateway.yaml": yaml.safe_dump(document)})
    command = [sys.executable, "-m", "gateway.cli", "run", "--config", str(mount.folder / "gateway.yaml")]
    with (first.folder / "stderr.log").open("ab") as errors:
        gateway = replace(first, process=subprocess.Popen(command, stdout=errors, stderr=errors))
    try:
        eventually(gateway.ready, 40)
        yield gateway, mount, document
    finally:
        gateway.process.terminate()
        gateway.process.wait(20)


def test_settings_in_a_config_map_take_effect_without_a_restart_or_say_that_they_need_one(
    mounted: tuple[RunningGateway, ConfigMap, dict[str, Any]],
) -> None:
    gateway, mount, document = mounted

    def status() -> dict[str, Any]:
        return dict(gateway.admin("/status").json())

    def swap(**changes: Any) -> None:
        text = yaml.safe_dump({**document, "spec": {**document["spec"], **changes}})
        mount.swap({"gateway.yaml": text})

    with gateway.client() as client:
        assert client.post("/run", headers=CAPABILITY, content=b"x" * 100).status_code == 200
        swap(limits={"maxBodyBytes": 10}, workers=3, redis={"url": "redis://localhost:1"})
        eventually(lambda: status()["needs_restart"] == ["workers", "redis"])
        assert client.post("/run", headers=CAPABILITY, content=b"x" * 100).status_code == 413
        assert "phoenixflight_restart_needed 2.0" in gateway.admin("/metrics").text
        assert "needs a restart: workers, redis" in gateway.log()
        admin = f"http://127.0.0.1:{gateway.admin_port}"
        command = [sys.executable, "-m", "gateway.cli", "status", "--admin", admin]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "needs a restart: workers, redis\n" in told

        mount.swap({"gateway.yaml": "kind: ["})
        refused = eventually(lambda: status()["last_refused"])
        assert "gateway.yaml:" in refused["problems"][0]
        assert client.post("/run", headers=CAPABILITY, content=b"x" * 100).status_code == 413

        other = gateway.folder / "elsewhere"
        (gateway.folder / "policies").rename(other)
        swap(policies=str(other))
        eventually(lambda: status()["in_step_with_files"] and not status()["needs_restart"])
        assert client.post("/run", headers=CAPABILITY, content=b"x" * 100).status_code == 200
        assert status()["files"][0].startswith(str(other))
        # The folder that is named now is the one that is watched.
        (other / "broken.yaml").write_text("kind: [")
        eventually(lambda: not status()["in_step_with_files"], 10)
