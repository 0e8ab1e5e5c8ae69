"""docs/shapes.md says what works."""

from __future__ import annotations

import re

import httpx
import yaml

from gateway.control.config import GatewayDocument
from gateway.documents import single
from gateway.membership.file import load_agents
from tests.conformance.test_http1 import answer_each
from tests.conftest import StartGateway, member
from tests.delivery import ROOT, mistakes

PAGE = (ROOT / "docs" / "shapes.md").read_text(encoding="utf-8")
MANIFESTS, BOUND, ENVIRONMENT = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_sidecars_objects_are_as_kubernetes_has_them() -> None:
    for each in yaml.safe_load_all(MANIFESTS):
        assert mistakes(each) == []


def test_the_sidecars_settings_are_as_the_gateway_has_them_and_redirected_to() -> None:
    settings, _, deployment = yaml.safe_load_all(MANIFESTS)
    _, document = single(settings["data"]["gateway.yaml"], "gateway.yaml", "Gateway", GatewayDocument)
    load_agents(settings["data"]["agents.yaml"], "agents.yaml")
    port = document.spec.listeners[0].address[1]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["initContainers"][0]["command"][-1] == str(port)
    assert pod["hostAliases"][0]["ip"] in pod["initContainers"][0]["command"]
    bound = yaml.safe_load(settings["data"]["gateway.yaml"])
    bound["spec"].update(yaml.safe_load(BOUND))
    single(yaml.safe_dump(bound), "gateway.yaml", "Gateway", GatewayDocument)
    proxies = {each["name"]: each["value"] for each in yaml.safe_load(ENVIRONMENT)["env"]}
    assert proxies["HTTP_PROXY"] == proxies["HTTPS_PROXY"] == f"http://127.0.0.1:{port}"


def test_a_name_is_a_capability_for_who_is_redirected_and_for_who_has_a_proxy(
    raw_agent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(raw_agent(answer_each).port)])
    host = "code.execute.flight.internal"
    redirected = httpx.get(f"{gateway.plain_url}/run", headers={"host": host}, trust_env=False)
    assert redirected.status_code == 200
    with httpx.Client(proxy=gateway.plain_url, trust_env=False) as client:
        assert client.get(f"http://{host}/run").status_code == 200
    assert gateway.handoff(capability="code.execute")["from"] == "spiffe://mesh.local/ns/agents/sa/local"
    other = httpx.get(f"{gateway.plain_url}/run", headers={"host": "example.com"}, trust_env=False)
    assert other.status_code == 400
