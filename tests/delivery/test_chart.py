"""What a release is made of, over a matrix of values."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.control.config import GatewayDocument
from gateway.documents import single
from gateway.membership.file import load_agents
from tests.delivery import (
    NAME,
    NAMESPACE,
    NEWEST,
    OLDEST,
    ROOT,
    Object,
    Values,
    helm,
    mistakes,
    of_kind,
    pod_of,
    rendered,
    schemas,
    settings_of,
    tool,
)
from tests.delivery.matrix import EXPOSED, MATRIX

pytestmark = pytest.mark.helm

FOLDER = "/etc/phoenixflight"
KINDS = r"[a-z]+-(v1|apps-v1|autoscaling-v2|networking-v1|policy-v1|rbac-v1)\.json"
FOREIGN_KINDS = ("Certificate", "Issuer", "PodMonitor", "PrometheusRule", "ServiceMonitor")


@pytest.fixture(scope="module", params=list(MATRIX))
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return rendered(MATRIX[request.param])


@pytest.fixture(scope="module")
def as_it_comes() -> list[Object]:
    return rendered()


@pytest.mark.parametrize("values", MATRIX.values(), ids=list(MATRIX))
def test_helm_finds_nothing_wrong_with_it(values: Values) -> None:
    done = helm("lint", "--strict", values=values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_object_is_as_kubernetes_has_it(objects: list[Object]) -> None:
    assert [mistake for each in objects for mistake in mistakes(each)] == []


def test_what_is_not_as_kubernetes_has_it_is_found() -> None:
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"ports": [{"prot": 1}]},
    }
    assert any("prot" in mistake for mistake in mistakes(service))


KUBECONFORM = tool("kubeconform")


@pytest.mark.skipif(KUBECONFORM is None, reason="no kubeconform: tools/test-deps builds it")
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubeconform_finds_nothing_wrong(version: str, tmp_path: Path) -> None:
    # As they are packed, they refer to each other by addresses on the web.
    packed = tmp_path / "schemas"
    packed.mkdir()
    for each in schemas(version).glob("*.json"):
        if each.name == "_definitions.json" or re.fullmatch(KINDS, each.name):
            schema = json.loads(each.read_text())
            del schema["$id"]
            (packed / each.name).write_text(json.dumps(schema).replace('"/api/_definitions', '"_definitions'))
    for number, values in enumerate(MATRIX.values()):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump_all(rendered(values)))
    assert KUBECONFORM is not None
    options = [
        *("-strict", "-summary", "-kubernetes-version", f"{version}.0", "-skip", ",".join(FOREIGN_KINDS)),
        *("-schema-location", f"{packed}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"),
    ]
    done = subprocess.run(
        [KUBECONFORM, *options, *tmp_path.glob("*.yaml")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "Invalid: 0, Errors: 0" in done.stdout


def test_no_two_objects_are_the_same_one_and_each_says_whose_it_is(objects: list[Object]) -> None:
    keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(set(keys)) == len(keys)
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "gateway"
        cluster_wide = each["kind"] in ("ClusterRole", "ClusterRoleBinding")
        assert ("namespace" in each["metadata"]) != cluster_wide


def test_the_gateway_takes_its_settings_and_its_members(objects: list[Object]) -> None:
    _, document = single(settings_of(objects), "gateway.yaml", "Gateway", GatewayDocument)
    assert document.spec.limits.drain_delay_s == 0
    members = [each for each in objects if each["metadata"]["name"].endswith("-members")]
    for each in members:
        load_agents(each["data"]["agents.yaml"], "agents.yaml")


def paths(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from paths(each)
    elif isinstance(node, str) and node.startswith(f"{FOLDER}/"):
        yield node


def test_each_file_of_the_settings_is_in_a_volume(objects: list[Object]) -> None:
    document, _ = single(settings_of(objects), "gateway.yaml", "Gateway", GatewayDocument)
    pod = pod_of(objects)["spec"]
    mounts = {each["mountPath"]: each["name"] for each in pod["containers"][0]["volumeMounts"]}
    volumes = {each["name"] for each in pod["volumes"]}
    assert set(mounts.values()) == volumes
    for path in paths(document.content["spec"]):
        assert any(path == folder or path.startswith(f"{folder}/") for folder in mounts), path


def test_what_is_selected_is_there(objects: list[Object]) -> None:
    labels = [pod_of(objects)["metadata"]["labels"]]
    labels += [each["spec"]["template"]["metadata"]["labels"] for each in objects if each["kind"] == "StatefulSet"]
    ports = {each["name"] for each in pod_of(objects)["spec"]["containers"][0]["ports"]} | {"redis"}
    for each in objects:
        spec = each.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector is None or each["kind"] == "ServiceMonitor":
            continue
        selector = selector.get("matchLabels", selector)
        assert sum(selector.items() <= found.items() for found in labels) == 1, each["metadata"]["name"]
        if each["kind"] == "Service":
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        if each["kind"] == "NetworkPolicy":
            assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= ports


def test_pods_have_no_more_rights_than_they_need(objects: list[Object]) -> None:
    pods = [pod_of(objects)["spec"]]
    pods += [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "StatefulSet"]
    pods += [each["spec"] for each in objects if each["kind"] == "Pod"]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        container = pod["containers"][0]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
    account = next((each for each in objects if each["kind"] == "ServiceAccount"), None)
    assert account is None or account["automountServiceAccountToken"] is False


def test_a_token_for_the_api_server_is_there_only_where_it_is_asked() -> None:
    assert pod_of(rendered())["spec"]["automountServiceAccountToken"] is True
    without = rendered({"kubernetes": {"enabled": False}})
    assert pod_of(without)["spec"]["automountServiceAccountToken"] is False
    assert not {"Role", "ClusterRole"} & {each["kind"] for each in without}


def test_probes_run_in_the_container_while_the_admin_port_is_on_loopback(as_it_comes: list[Object]) -> None:
    container = pod_of(as_it_comes)["spec"]["containers"][0]
    ask = ["phoenixflight", "health"]
    admin = ["--admin", "http://127.0.0.1:9901"]
    assert container["readinessProbe"]["exec"]["command"] == [*ask, *admin]
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == [*ask, "--live", *admin]
    assert "admin" not in {each["name"] for each in container["ports"]}
    assert "address: 127.0.0.1:9901" in settings_of(as_it_comes)


@pytest.mark.parametrize(("tls", "scheme"), [(True, "HTTPS"), (False, "HTTP")])
def test_probes_ask_an_exposed_admin_port_over_http(tls: bool, scheme: str) -> None:
    container = pod_of(rendered({"admin": {**EXPOSED, "tls": tls}}))["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin", "scheme": scheme}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "admin", "scheme": scheme}


SECONDS = {"0s": 0, "500ms": 0.5, "5s": 5, "1.5s": 1.5, "2m": 120, "1h": 3600}


@pytest.mark.parametrize("delay", ["0s", "500ms", "1.5s", "1h"])
@pytest.mark.parametrize("timeout", ["5s", "2m"])
def test_the_grace_period_is_what_a_drain_takes(delay: str, timeout: str) -> None:
    objects = rendered({"drain": {"delay": delay, "timeout": timeout}})
    pod = pod_of(objects)["spec"]
    assert pod["terminationGracePeriodSeconds"] == math.ceil(SECONDS[delay]) + math.ceil(SECONDS[timeout]) + 10
    sleep = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert sleep == math.ceil(SECONDS[delay])
    _, document = single(settings_of(objects), "gateway.yaml", "Gateway", GatewayDocument)
    assert document.spec.limits.drain_timeout_s == SECONDS[timeout]


def test_an_edit_of_policies_or_members_replaces_no_pod_and_one_of_settings_does(as_it_comes: list[Object]) -> None:
    edited = {
        "policies": {"documents": {"new.yaml": "# none\n"}},
        "members": {"agents": [{"name": "a", "address": "10.0.0.1:80", "capabilities": ["x"]}]},
    }
    assert pod_of(rendered(edited)) == pod_of(as_it_comes)
    assert pod_of(rendered({"gateway": {"zone": "eu-1a"}})) != pod_of(as_it_comes)
    assert not any("checksum" in key for key in pod_of(as_it_comes)["metadata"].get("annotations", {}))
    [settings] = [each for each in as_it_comes if "-settings-" in each["metadata"]["name"]]
    assert settings["immutable"] is True


def test_a_password_stands_in_no_config_map() -> None:
    for each in rendered(MATRIX["with a Redis that has a password"]):
        assert "secret@" not in str(each) or each["kind"] == "Secret"


def test_callers_are_told_what_a_port_speaks() -> None:
    service = of_kind(rendered(MATRIX["plaintext as well, behind a balancer"]), "Service")
    told = {each["name"]: (each["port"], each["appProtocol"]) for each in service["spec"]["ports"]}
    assert told == {"mesh": (443, "https"), "plain": (8080, "kubernetes.io/h2c")}


def test_the_certificate_is_the_service_accounts(as_it_comes: list[Object]) -> None:
    certificate = of_kind(as_it_comes, "Certificate", f"{NAME}-identity")["spec"]
    assert certificate["uris"] == [f"spiffe://mesh.local/ns/{NAMESPACE}/sa/{NAME}"]
    assert certificate["usages"] == ["digital signature", "server auth", "client auth"]
    named = rendered(MATRIX["an issuer of the platform's"])
    assert of_kind(named, "Certificate")["spec"]["issuerRef"]["name"] == "mesh"
    assert not [each for each in named if each["kind"] == "Issuer"]


def test_the_scheduler_spreads_pods_and_evictions_take_one_at_a_time(as_it_comes: list[Object]) -> None:
    spread = pod_of(as_it_comes)["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert of_kind(as_it_comes, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    strategy = of_kind(as_it_comes, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}


def test_an_autoscaler_has_the_pods_count_to_itself() -> None:
    objects = rendered(MATRIX["scaled"])
    assert "replicas" not in of_kind(objects, "Deployment")["spec"]
    metrics = of_kind(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metrics[0]["resource"]["target"]["averageUtilization"] == 70
    assert metrics[1]["pods"]["metric"] == {"name": "phoenixflight_handoffs_in_flight"}
    assert metrics[1]["pods"]["target"] == {"type": "AverageValue", "averageValue": "500"}


def test_prometheus_has_the_alerts_and_grafana_the_dashboards() -> None:
    objects = rendered(MATRIX["scraped by its Service"])
    groups = of_kind(objects, "PrometheusRule")["spec"]["groups"]
    written = [
        group
        for path in sorted((ROOT / "observability" / "prometheus").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    assert groups == written
    dashboards = of_kind(objects, "ConfigMap", f"{NAME}-dashboards")["data"]
    assert dashboards.keys() == {each.name for each in (ROOT / "observability" / "grafana").glob("*.json")}
    assert all(json.loads(each)["title"] for each in dashboards.values())


def test_alerts_lead_to_the_runbook_that_there_is() -> None:
    objects = rendered({"monitoring": {"rules": {"enabled": True, "runbook": "https://wiki.example/runbook"}}})
    rules = [each for group in of_kind(objects, "PrometheusRule")["spec"]["groups"] for each in group["rules"]]
    alerts = [each for each in rules if "alert" in each]
    assert alerts
    for each in alerts:
        assert each["annotations"]["runbook_url"] == f"https://wiki.example/runbook#{each['alert'].lower()}"


def test_prometheus_verifies_whom_it_shows_the_token() -> None:
    endpoint = of_kind(rendered(MATRIX["scraped by its Service"]), "ServiceMonitor")["spec"]["endpoints"][0]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == f"{NAME}-admin.{NAMESPACE}.svc"
    assert endpoint["tlsConfig"]["ca"] == {"secret": {"name": f"{NAME}-identity", "key": "ca.crt"}}
    assert endpoint["authorization"] == {"credentials": {"name": "admin-token", "key": "token"}}
    assert f"{NAME}-admin.{NAMESPACE}.svc" in of_kind(rendered(), "Certificate", f"{NAME}-identity")["spec"]["dnsNames"]
