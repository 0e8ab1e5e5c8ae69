"""The same source against a real kube-apiserver, with no more rights than the documentation gives it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from gateway.routing import AgentState
from tests.kube_api.real import RealApi, missing
from tests.membership.kubernetes.cluster import ENDING, following, pod, service, slice_of
from tests.membership.kubernetes.test_flaps import SLICES, change, seen, slices, truth

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApi]:
    found = RealApi(tmp_path_factory.mktemp("apiserver"))
    yield found
    found.stop()


@pytest.fixture
def api(server: RealApi) -> Iterator[RealApi]:
    """An API server without objects in the namespace of the tests."""
    server.up()
    yield server
    server.up()
    for plural in ("endpointslices", "services"):
        server.clear(plural)


async def test_services_become_members_and_readiness_is_followed(api: RealApi) -> None:
    api.put("services", service())
    api.put("endpointslices", slice_of("coder", pod("coder-0", "10.1.0.1", zone="eu-1a")))
    async with following(api) as follower:
        await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.1.0.1"})
        assert follower.agents["coder-0.agents"].zone == "eu-1a"
        api.put("endpointslices", slice_of("coder", pod("coder-0", "10.1.0.1", ENDING)))
        await follower.until(lambda: follower.agents["coder-0.agents"].state is AgentState.DRAINING)
        api.delete("endpointslices", "agents", "coder-a")
        await follower.until(lambda: not follower.agents)
        assert not follower.problems


async def test_only_one_namespace_can_be_followed(api: RealApi) -> None:
    api.put("services", service(), service(namespace="phoenixflight"))
    for namespace in ("agents", "phoenixflight"):
        api.put("endpointslices", slice_of("coder", pod(None, "10.1.0.1"), namespace=namespace))
    async with following(api, namespaces=("agents",)) as follower:
        await follower.until(lambda: list(follower.agents) == ["coder-10-1-0-1.agents"])


async def test_a_server_that_dies_empties_nothing_and_is_followed_again(api: RealApi) -> None:
    api.put("services", service())
    api.put("endpointslices", slice_of("coder", pod("coder-0", "10.1.0.1")))
    api.put("endpointslices", slice_of("coder", pod("coder-1", "10.1.0.7"), suffix="b"))
    async with following(api) as follower:
        await follower.until(lambda: len(follower.agents) == 2)
        await asyncio.to_thread(api.down)
        await follower.until(lambda: follower.watch("services")["state"] == "backing off")
        assert len(follower.agents) == 2
        await asyncio.to_thread(api.up)
        api.delete("endpointslices", "agents", "coder-b")
        version = api.put("endpointslices", slice_of("coder", pod("coder-0", "10.1.0.2")))
        await asyncio.to_thread(api.compact, version)
        await follower.until(lambda: follower.hosts() == {"coder-0.agents": "10.1.0.2"}, 20)


async def test_flaps_are_followed_within_a_second(api: RealApi) -> None:
    chance = random.Random(3)
    written = slices()
    api.put("services", *(service(f"agent-{owner}") for owner in range(SLICES)))
    api.put("endpointslices", *written)
    times = []
    async with following(api) as follower:
        await follower.until(lambda: seen(follower) == truth(written))
        for _ in range(100):
            api.put("endpointslices", written[change(chance, written)])
            times.append(await follower.until(lambda: seen(follower) == truth(written)))
    assert sorted(times)[-3] < 1.0
