"""docs/kubernetes.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import yaml

from gateway.membership.kubernetes import KubernetesSpec, api, offer, watch
from gateway.membership.kubernetes.objects import Service
from gateway.membership.kubernetes.offer import offer_of
from gateway.routing import Protocol

PAGE = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_of_a_configuration_shows_every_field() -> None:
    spec = KubernetesSpec.model_validate(yaml.safe_load(YAML[0])["kubernetes"], by_alias=True, by_name=False)
    assert spec.model_fields_set == set(KubernetesSpec.model_fields)


def test_the_example_of_a_service_offers_what_the_page_says() -> None:
    offered = offer_of(msgspec.convert(yaml.safe_load(YAML[1]), Service))
    assert offered.capabilities == {"code.write", "code.review", "code.execute"}
    assert (offered.trust, offered.protocol, offered.port_name) == (0.9, Protocol.H2, "flight")
    assert offered.labels == (("tier", "sandbox"),)
    assert offered.spiffe_id == "spiffe://mesh.local/ns/agents/sa/coder"


def test_the_rights_are_those_to_read_what_is_watched_and_no_more() -> None:
    account, role, binding = yaml.safe_load_all(YAML[2])
    asked = {(kind.resource._api_info.resource.group, kind.plural) for kind in (api.SERVICES, api.SLICES)}
    granted = {(group, each) for rule in role["rules"] for group in rule["apiGroups"] for each in rule["resources"]}
    assert granted == asked
    assert all(rule["verbs"] == ["list", "watch"] for rule in role["rules"])
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert {"kind": "ServiceAccount", **account["metadata"]} in binding["subjects"]


def test_names_and_numbers_are_those_of_the_code() -> None:
    for name in (offer.IS_AGENT, offer.CAPABILITIES, offer.CAPABILITY_PREFIX, offer.TRUST, offer.PORT, offer.SPIFFE_ID):
        assert f"`{name}" in PAGE
    assert f"of {watch.FIRST_RETRY_S:g} s that doubles with each failure up to {watch.MAX_RETRY_S:g} s" in PAGE
    assert f"at most {api.MAX_RETRY_AFTER_S / 60:g} minutes" in PAGE
    for state in watch.State:
        assert f"`{state.value}`" in PAGE
