"""Helm installs the chart in a real API server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.delivery import CHART, NAME, NAMESPACE, tool
from tests.kube_api.real import ADMIN_TOKEN, RealApi, missing

pytestmark = [pytest.mark.helm, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApi]:
    found = RealApi(tmp_path_factory.mktemp("apiserver"))
    config = yaml.safe_load(found.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": ADMIN_TOKEN}
    (found.folder / "admin").write_text(yaml.safe_dump(config))
    yield found
    found.stop()


def helm(server: RealApi, *arguments: str) -> str:
    program = tool("helm")
    assert program is not None
    home = {name: str(server.folder / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    done = subprocess.run(
        [program, *arguments, "--namespace", NAMESPACE, "--kubeconfig", str(server.folder / "admin")],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **home},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def values(folder: Path, **more: object) -> str:
    written = folder / "values.yaml"
    secret = {"source": "secret", "secretName": "svid"}
    autoscaling = {"enabled": True, "inFlight": 100}
    written.write_text(
        yaml.safe_dump({"identity": secret, "redis": {"enabled": True}, "autoscaling": autoscaling, **more})
    )
    return str(written)


def test_a_release_is_installed_upgraded_and_rolled_back(server: RealApi, tmp_path: Path) -> None:
    told = helm(server, "install", "gateway", str(CHART), "--values", values(tmp_path))
    notes = told.partition("NOTES:")[2]
    assert f"mesh: {NAME}.{NAMESPACE}.svc:8443" in notes
    assert "Nothing is allowed yet" in notes
    assert "helm test gateway --namespace phoenixflight" in notes
    before = helm(server, "get", "manifest", "gateway")
    helm(server, "upgrade", "gateway", str(CHART), "--values", values(tmp_path, gateway={"zone": "eu-1a"}))
    assert helm(server, "get", "manifest", "gateway") != before
    helm(server, "rollback", "gateway", "1")
    assert helm(server, "get", "manifest", "gateway") == before
    helm(server, "uninstall", "gateway")
