"""From objects to agents: what labels, annotations, ports and conditions come to."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import SpiffeId
from gateway.membership.kubernetes import Catalog, IpFamily
from gateway.membership.kubernetes.objects import Endpoints, EndpointSlice, Key, Service
from gateway.routing import AgentState, Protocol
from tests.kube_api import Object
from tests.membership.kubernetes.cluster import ENDING, READY, UNREADY, endpoints, pod, service, slice_of


def catalog_of(*objects: Object, prefer: IpFamily = IpFamily.IPV4) -> Catalog:
    """A settled catalog of these objects."""
    catalog = Catalog(prefer)
    for each in objects:
        put(catalog, each)
    catalog.settle()
    return catalog


def put(catalog: Catalog, written: Object) -> None:
    model: Any = Service if "spec" in written else Endpoints if "subsets" in written else EndpointSlice
    catalog.put(msgspec.convert(written, model))


def one(*objects: Object, prefer: IpFamily = IpFamily.IPV4) -> Any:
    """The only agent that these objects make, without problems."""
    catalog = catalog_of(*objects, prefer=prefer)
    assert not catalog.problems
    (agent,) = catalog.agents.values()
    return agent


CODER = pod("coder-0", "10.0.0.1")


class TestServices:
    def test_a_pod_behind_an_agent_service_is_an_agent(self) -> None:
        agent = one(service(), slice_of("coder", pod("coder-0", "10.0.0.1", zone="eu-1a")))
        assert (agent.name, agent.host, agent.port) == ("coder-0.agents", "10.0.0.1", 8080)
        assert (agent.capabilities, agent.trust) == ({"code.write"}, 1.0)
        assert (agent.protocol, agent.spiffe_id, agent.zone) == (Protocol.HTTP1, None, "eu-1a")
        assert agent.state is AgentState.READY

    def test_capabilities_come_from_labels_and_from_the_annotation(self) -> None:
        labels = {
            "capability.phoenixflight.io/code.review": "true",
            "capability.phoenixflight.io/code.merge": "false",
        }
        listed = {"phoenixflight.io/capabilities": " code.write, code.execute/python ,"}
        agent = one(service(labels=labels, annotations=listed), slice_of("coder", CODER))
        assert agent.capabilities == {"code.review", "code.write", "code.execute/python"}

    @pytest.mark.parametrize(
        ("labels", "annotations", "trust"),
        [
            ({"phoenixflight.io/trust": "0.5"}, {}, 0.5),
            ({"phoenixflight.io/trust": "0.5"}, {"phoenixflight.io/trust": "0"}, 0.0),
        ],
    )
    def test_trust_comes_from_a_label_or_first_from_an_annotation(
        self, labels: dict[str, str], annotations: dict[str, str], trust: float
    ) -> None:
        assert one(service(labels=labels, annotations=annotations), slice_of("coder", CODER)).trust == trust

    def test_labels_of_the_service_are_the_agents_but_for_those_of_kubernetes_and_ours(self) -> None:
        labels = {
            "tier": "gold",
            "example.com/team": "a",
            "app.kubernetes.io/name": "coder",
            "phoenixflight.io/trust": "1",
        }
        agent = one(service(labels=labels), slice_of("coder", CODER))
        assert agent.labels == (("example.com/team", "a"), ("tier", "gold"))

    def test_an_identity_makes_the_connection_mtls(self) -> None:
        shown = {"phoenixflight.io/spiffe-id": "spiffe://mesh.local/ns/agents/sa/coder"}
        agent = one(service(annotations=shown), slice_of("coder", CODER))
        assert agent.spiffe_id == SpiffeId("spiffe://mesh.local/ns/agents/sa/coder")
        assert agent.tls

    def test_an_annotation_says_where_context_is_given_and_taken(self) -> None:
        shown = {"phoenixflight.io/context-path": "/context"}
        assert one(service(annotations=shown), slice_of("coder", CODER)).context_path == "/context"

    @pytest.mark.parametrize(
        ("app_protocol", "protocol"),
        [
            (None, Protocol.HTTP1),
            ("http", Protocol.HTTP1),
            ("kubernetes.io/h2c", Protocol.H2C),
            ("h2", Protocol.H2),
            ("https", Protocol.H2),
        ],
    )
    def test_the_ports_app_protocol_says_what_it_speaks(self, app_protocol: str | None, protocol: Protocol) -> None:
        ports = [{"name": "http", "port": 80, "appProtocol": app_protocol}]
        assert one(service(ports=ports), slice_of("coder", CODER)).protocol is protocol

    def test_a_port_is_found_by_annotation_then_by_name_then_because_it_is_the_only_one(self) -> None:
        ports: list[Object] = [
            {"name": "metrics", "port": 9090},
            {"name": "flight", "port": 80},
            {"name": "alt", "port": 81},
        ]
        resolved: list[Object] = [
            {"name": "alt", "port": 8082},
            {"name": "metrics", "port": 9090},
            {"name": "flight", "port": 8081},
        ]
        slices = slice_of("coder", CODER, ports=resolved)
        assert one(service(ports=ports), slices).port == 8081
        for wanted in ("alt", "81"):
            assert one(service(ports=ports, annotations={"phoenixflight.io/port": wanted}), slices).port == 8082
        unnamed = slice_of("coder", CODER, ports=[{"name": "", "port": 7000}])
        assert one(service(ports=[{"port": 80}]), unnamed).port == 7000

    def test_a_named_target_port_may_be_another_in_each_slice(self) -> None:
        first = slice_of("coder", CODER, ports=[{"name": "http", "port": 8080}])
        second = slice_of("coder", pod("coder-1", "10.0.0.2"), suffix="b", ports=[{"name": "http", "port": 9090}])
        agents = catalog_of(service(), first, second).agents
        assert {agent.port for agent in agents.values()} == {8080, 9090}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"annotations": {"phoenixflight.io/trust": "1.5"}}, "must be a number from 0 to 1"),
        ({"annotations": {"phoenixflight.io/trust": "nan"}}, "must be a number from 0 to 1"),
        ({"annotations": {"phoenixflight.io/capabilities": "code write"}}, "'code write' is not a capability"),
        ({"annotations": {"phoenixflight.io/capabilities": ""}}, "it names no capability"),
        ({"labels": {"capability.phoenixflight.io/a": "yes"}}, "must be true or false, not 'yes'"),
        ({"annotations": {"phoenixflight.io/spiffe-id": "coder"}}, "phoenixflight.io/spiffe-id: "),
        ({"annotations": {"phoenixflight.io/context-path": "context"}}, "context-path: expected a path"),
        ({"annotations": {"phoenixflight.io/port": "grpc"}}, "it has no TCP port 'grpc'"),
        ({"ports": [{"name": "http", "port": 80, "appProtocol": "kubernetes.io/ws"}]}, "'kubernetes.io/ws' is none of"),
        ({"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}, "it has no TCP port"),
        ({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}, "it has 2 TCP ports"),
        ({"type": "ExternalName"}, "ExternalName has no endpoints"),
        (
            {
                "ports": [{"name": "http", "port": 80, "appProtocol": "kubernetes.io/h2c"}],
                "annotations": {"phoenixflight.io/spiffe-id": "spiffe://mesh.local/a"},
            },
            "h2c is plaintext",
        ),
        ({"ports": [{"name": "flight", "port": 80}]}, "endpoints are left out that have no TCP port 'flight'"),
    ],
)
def test_a_service_with_a_mistake_is_one_problem_and_touches_no_other(changed: Any, sentence: str) -> None:
    good = service("reviewer"), slice_of("reviewer", pod("reviewer-0", "10.0.0.9"))
    catalog = catalog_of(service(**changed), slice_of("coder", CODER), *good)
    assert list(catalog.agents) == ["reviewer-0.agents"]
    assert list(catalog.problems) == ["agents/coder"]
    assert sentence in catalog.problems["agents/coder"]


class TestEndpoints:
    @pytest.mark.parametrize(
        ("conditions", "state"),
        [
            ({}, AgentState.READY),
            ({"ready": None, "serving": None, "terminating": None}, AgentState.READY),
            (READY, AgentState.READY),
            (ENDING, AgentState.DRAINING),
            ({"ready": True, "serving": True, "terminating": True}, AgentState.DRAINING),
            (UNREADY, None),
            ({"ready": False, "serving": False, "terminating": True}, None),
            ({"ready": True, "serving": False, "terminating": True}, None),
        ],
    )
    def test_conditions_tell_who_is_ready_who_drains_and_who_is_none(
        self, conditions: dict[str, bool | None], state: AgentState | None
    ) -> None:
        agents = catalog_of(service(), slice_of("coder", pod("coder-0", "10.0.0.1", conditions))).agents
        assert [agent.state for agent in agents.values()] == ([] if state is None else [state])

    def test_a_pod_in_two_families_is_one_agent_at_the_preferred_address(self) -> None:
        objects = (
            service(),
            slice_of("coder", pod("coder-0", "fd00::1"), suffix="six", family="IPv6"),
            slice_of("coder", CODER, suffix="four"),
        )
        assert one(*objects).host == "10.0.0.1"
        assert one(*objects, prefer=IpFamily.IPV6).host == "fd00::1"

    def test_an_endpoint_that_moves_from_slice_to_slice_is_one_agent(self) -> None:
        assert one(service(), slice_of("coder", CODER), slice_of("coder", CODER, suffix="b")).host == "10.0.0.1"

    def test_a_pod_that_one_slice_knows_to_end_is_draining(self) -> None:
        ending = slice_of("coder", pod("coder-0", "10.0.0.1", ENDING), suffix="b")
        assert one(service(), slice_of("coder", CODER), ending).state is AgentState.DRAINING

    def test_a_pod_that_comes_back_under_its_name_is_ready_while_the_old_one_ends(self) -> None:
        old = slice_of("coder", pod("coder-0", "10.0.0.1", ENDING, uid="old"))
        new = slice_of("coder", pod("coder-0", "10.0.0.2", uid="new"), suffix="b")
        agent = one(service(), old, new)
        assert (agent.host, agent.state) == ("10.0.0.2", AgentState.READY)

    @pytest.mark.parametrize(
        ("address", "family", "name"),
        [
            ("10.0.0.1", "IPv4", "coder-10-0-0-1.agents"),
            ("fd00::", "IPv6", "coder-fd00-0000-0000-0000-0000-0000-0000-0000.agents"),
        ],
    )
    def test_an_address_without_a_pod_is_named_by_its_service(self, address: str, family: str, name: str) -> None:
        assert one(service(), slice_of("coder", pod(None, address), family=family)).name == name

    def test_endpoints_make_the_same_agents_as_slices(self) -> None:
        reference = {"kind": "Pod", "namespace": "agents", "name": "coder-0"}
        found = endpoints("coder", {"ip": "10.0.0.1", "targetRef": reference}, not_ready=[{"ip": "10.0.0.2"}])
        assert one(service(), found) == one(service(), slice_of("coder", CODER))


class TestPodsOfSeveralServices:
    def test_a_pod_behind_two_services_is_one_agent_that_can_do_both(self) -> None:
        other = service(
            "reviewer",
            labels={"tier": "gold"},
            annotations={"phoenixflight.io/capabilities": "code.review", "phoenixflight.io/trust": "0.5"},
        )
        agent = one(
            service(labels={"tier": "iron"}), other, slice_of("coder", CODER), slice_of("reviewer", CODER)
        )  # fmt: skip
        assert agent.capabilities == {"code.write", "code.review"}
        assert agent.trust == 0.5
        assert agent.labels == (("tier", "iron"),)

    def test_what_one_of_two_services_no_longer_says_is_gone(self) -> None:
        other = service("reviewer", annotations={"phoenixflight.io/capabilities": "code.review"})
        catalog = catalog_of(service(), other, slice_of("coder", CODER), slice_of("reviewer", CODER))
        catalog.remove(Service, Key("agents", "coder"))
        assert catalog.settle()
        assert catalog.agents["coder-0.agents"].capabilities == {"code.review"}

    def test_of_services_that_contradict_each_other_the_first_by_name_counts(self) -> None:
        ports = slice_of("reviewer", CODER, ports=[{"name": "http", "port": 9999}])
        catalog = catalog_of(service("reviewer"), ports, service(), slice_of("coder", CODER))
        assert catalog.agents["coder-0.agents"].port == 8080
        assert catalog.problems == {
            "agents/reviewer": "agent coder-0.agents is left to agents/coder, which has another port"
        }


def test_nothing_is_new_where_nothing_changed() -> None:
    catalog = catalog_of(service(), slice_of("coder", CODER))
    before = catalog.agents
    put(catalog, slice_of("coder", CODER))
    assert not catalog.settle()
    assert catalog.agents is before


def test_a_slice_of_no_agent_and_a_slice_before_its_service_are_kept_for_later() -> None:
    catalog = catalog_of(slice_of("coder", CODER))
    assert not catalog.agents
    assert not catalog.problems
    put(catalog, service())
    catalog.settle()
    assert list(catalog.agents) == ["coder-0.agents"]


def test_one_change_among_many_services_costs_what_one_service_costs() -> None:
    catalog = Catalog()
    for number in range(50):
        name = f"coder-{number}"
        put(catalog, service(name))
        put(catalog, slice_of(name, *(pod(f"{name}-{each}", f"10.0.{number}.{each}") for each in range(100))))
    began = time.perf_counter()
    catalog.settle()
    whole_s = time.perf_counter() - began
    assert len(catalog.agents) == 5000
    costs = []
    for address in range(200, 210):
        put(catalog, slice_of("coder-7", pod("coder-7-0", f"10.0.7.{address}")))
        began = time.perf_counter()
        assert catalog.settle()
        costs.append(time.perf_counter() - began)
    assert min(costs) < whole_s / 5


NAMES = st.sampled_from(["coder", "reviewer", "planner"])
CONDITIONS = st.sampled_from([READY, UNREADY, ENDING])
PODS = st.builds(
    lambda number, address, conditions: pod(f"pod-{number}", f"10.0.0.{address}", conditions),
    st.integers(0, 3), st.integers(1, 3), CONDITIONS,
)  # fmt: skip
SERVICES = st.builds(
    lambda name, listed, trust: service(
        name, annotations={"phoenixflight.io/capabilities": listed, "phoenixflight.io/trust": trust}
    ),
    NAMES, st.sampled_from(["a", "b", "a,b", "no good"]), st.sampled_from(["1", "0.5", "2"]),
)  # fmt: skip
SLICES = st.builds(
    lambda name, suffix, pods: slice_of(name, *pods, suffix=suffix),
    NAMES, st.sampled_from("ab"), st.lists(PODS, max_size=3),
)  # fmt: skip
STEPS = st.lists(st.tuples(st.booleans(), st.one_of(SERVICES, SLICES)), max_size=25)


@given(STEPS)
def test_step_by_step_comes_to_the_same_as_all_at_once(steps: list[tuple[bool, Object]]) -> None:
    catalog = Catalog()
    kept: dict[tuple[bool, str], Object] = {}
    for remove, written in steps:
        name, is_service = written["metadata"]["name"], "spec" in written
        if remove:
            catalog.remove(Service if is_service else EndpointSlice, Key("agents", name))
            kept.pop((is_service, name), None)
        else:
            put(catalog, written)
            kept[is_service, name] = written
        catalog.settle()
    fresh = catalog_of(*kept.values())
    assert catalog.agents == fresh.agents
    assert catalog.problems == fresh.problems
