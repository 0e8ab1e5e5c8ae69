"""A gateway that runs on what the chart renders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import POLICY, RunningGateway, eventually
from tests.delivery import CHART, NAME, NAMESPACE, RELEASE, Object, Values, rendered
from tests.delivery.running import mounted, start
from tests.kube_api import KubeApi
from tests.kube_api.rbac import Rights
from tests.kube_api.store import KINDS
from tests.membership.kubernetes.cluster import pod, service, slice_of

pytestmark = pytest.mark.helm

ACCOUNT = f"{NAMESPACE}/{NAME}"


@pytest.fixture(scope="module")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    server = KubeApi(tmp_path_factory.mktemp("kube"))
    yield server
    server.stop()


@pytest.fixture
def api(kube: KubeApi) -> KubeApi:
    """An API server with one agent, in the namespace `agents`."""
    kube.reset()
    kube.put("services", service())
    kube.put("endpointslices", slice_of("coder", pod("coder-0", "10.1.0.1")))
    return kube


@pytest.fixture
def running() -> Iterator[list[RunningGateway]]:
    """Gateways that end with the test."""
    started: list[RunningGateway] = []
    yield started
    for each in started:
        each.stop()


def policies(*names: str) -> Values:
    documents = {f"{name}.yaml": {**POLICY, "metadata": {"name": name}} for name in names}
    return {"kubernetes": {"enabled": False}, "policies": {"documents": documents}}


def data(objects: list[Object], ending: str) -> dict[str, str]:
    [found] = [each for each in objects if each["metadata"]["name"].endswith(ending)]
    return dict(found["data"])


def test_an_upgrade_of_policies_and_members_reloads_the_gateway_that_runs(
    tmp_path: Path, certs: Path, running: list[RunningGateway]
) -> None:
    volumes = mounted(rendered(policies("one")), tmp_path, certs)
    gateway = start(volumes, certs)
    running.append(gateway)
    before = gateway.revision()
    agent = {"name": "late", "address": "127.0.0.1:9", "capabilities": ["code.execute"]}
    after = rendered({**policies("one", "two"), "members": {"agents": [agent]}})
    volumes.maps["policies"].swap(data(after, "-policies"))
    volumes.maps["members"].swap(data(after, "-members"))

    def told() -> dict[str, Any]:
        return dict(gateway.admin("/snapshot").json())

    eventually(lambda: [each["name"] for each in told()["agents"]] == ["late"])
    eventually(lambda: [each["name"] for each in told()["policies"]] == ["one", "two"])
    assert gateway.revision() != before
    volumes.maps["policies"].swap({"one.yaml": "kind: ["})
    eventually(lambda: gateway.admin("/status").json()["last_refused"])
    assert [each["name"] for each in told()["policies"]] == ["one", "two"]


def kubernetes(api: KubeApi, namespaces: list[str]) -> Values:
    return {"kubernetes": {"kubeconfig": str(api.kubeconfig), "namespaces": namespaces}}


@pytest.mark.parametrize("namespaces", [[], ["agents", "lab"]], ids=["all", "some"])
def test_the_roles_are_what_the_gateway_asks_for_and_nothing_else(
    api: KubeApi, tmp_path: Path, certs: Path, running: list[RunningGateway], namespaces: list[str]
) -> None:
    objects = rendered({"kubernetes": {"namespaces": namespaces}})
    api.grant(ACCOUNT, *objects)
    gateway = start(mounted(objects, tmp_path, certs, **kubernetes(api, namespaces)), certs)
    running.append(gateway)
    granted = Rights.of(ACCOUNT, objects).granted
    assert granted

    def asked() -> set[tuple[str, str, str, str]]:
        return {
            (each["namespace"], group, each["plural"], each["verb"])
            for each in api.requests()
            for group, slash, _ in [KINDS[each["plural"]][0].rpartition("/")]
        }

    eventually(lambda: asked() == granted)
    # What was listed comes into force a moment later.
    eventually(lambda: [each["name"] for each in gateway.admin("/snapshot").json()["agents"]] == ["coder-0.agents"])


def without(objects: list[Object], resource: str, verb: str) -> list[Object]:
    """The objects, with one right taken out."""
    for each in objects:
        for rule in each.get("rules", ()):
            if resource in rule["resources"]:
                rule["verbs"] = [kept for kept in rule["verbs"] if kept != verb]
    return objects


@pytest.mark.parametrize(
    ("namespaces", "resource", "verb", "named"),
    [
        ([], "services", "list", "may not list services in all namespaces"),
        (["agents"], "endpointslices", "watch", "may not watch endpointslices.discovery.k8s.io in agents"),
    ],
)
def test_without_a_right_the_gateway_is_not_ready_and_names_it(
    api: KubeApi,
    tmp_path: Path,
    certs: Path,
    running: list[RunningGateway],
    namespaces: list[str],
    resource: str,
    verb: str,
    named: str,
) -> None:
    objects = rendered({"kubernetes": {"namespaces": namespaces}})
    api.grant(ACCOUNT, *without(objects, resource, verb))
    gateway = start(mounted(objects, tmp_path, certs, **kubernetes(api, namespaces)), certs, ready=False)
    running.append(gateway)
    sentence = f"not ready: no list of members yet from kubernetes, which {named}\n"
    eventually(lambda: gateway.admin("/readyz").text == sentence)
    assert gateway.admin("/readyz").status_code == 503
    assert named in gateway.log()
    api.grant(ACCOUNT, *rendered({"kubernetes": {"namespaces": namespaces}}))
    eventually(gateway.ready, 30)


def test_helms_test_finds_a_gateway_and_nothing_else(
    tmp_path: Path, certs: Path, running: list[RunningGateway]
) -> None:
    gateway = start(mounted(rendered(policies("one")), tmp_path, certs), certs)
    running.append(gateway)
    environment = {
        "GATEWAY_HOST": "127.0.0.1", "GATEWAY_PORT": str(gateway.tls_port), "IDENTITY": str(certs),
        "CERTIFICATE": "gateway.pem", "KEY": "gateway-key.pem", "ROOTS": "ca.pem",
        "SPIFFE_ID": "spiffe://mesh.local/ns/phoenixflight/sa/gateway",
    }  # fmt: skip

    def run(**changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, CHART / "files" / "test.py"],
            env={**os.environ, **environment, **changed}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    found = run()
    assert found.returncode == 0, found.stdout + found.stderr
    assert run(SPIFFE_ID="spiffe://mesh.local/ns/other/sa/gateway").returncode != 0
    assert run(GATEWAY_PORT=str(gateway.admin_port), IDENTITY="").returncode != 0


def test_the_test_is_a_hook_and_knows_the_release(tmp_path: Path) -> None:
    [hook] = [each for each in rendered() if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    environment = {each["name"]: each["value"] for each in hook["spec"]["containers"][0]["env"]}
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert environment["GATEWAY_HOST"] == f"{RELEASE}-phoenixflight-gateway.{NAMESPACE}.svc"
    assert hook["spec"]["containers"][0]["command"][2] == (CHART / "files" / "test.py").read_text()
