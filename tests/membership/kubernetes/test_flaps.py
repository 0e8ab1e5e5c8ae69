"""Endpoints that come, drain and go while everything goes wrong: the members are soon those of the API server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from gateway.routing import AgentState
from tests.kube_api import KubeApi, Object
from tests.membership.kubernetes.cluster import ENDING, READY, UNREADY, Follower, following, pod, service, slice_of

SLICES = 6
PODS = 5
FAULTS = (
    {"do": "status", "code": 410},
    {"do": "status", "code": 429},
    {"do": "status", "code": 500},
    {"do": "slow", "seconds": 0.05},
    {"do": "gone", "verb": "watch"},
    {"do": "cut", "verb": "watch"},
)


def slices() -> list[Object]:
    return [
        slice_of(
            f"agent-{owner}",
            *(pod(f"agent-{owner}-{number}", f"10.0.{owner}.{number}") for number in range(PODS)),
        )
        for owner in range(SLICES)
    ]


def truth(objects: Iterable[Object]) -> dict[str, tuple[str, AgentState]]:
    """Who is a member by these slices, where and how, said once more and simply."""
    members = {}
    for each in objects:
        for endpoint in each["endpoints"] or ():
            conditions = endpoint["conditions"]
            name = f"{endpoint['targetRef']['name']}.agents"
            if conditions["ready"]:
                members[name] = endpoint["addresses"][0], AgentState.READY
            elif conditions["serving"]:
                members[name] = endpoint["addresses"][0], AgentState.DRAINING
    return members


def seen(follower: Follower) -> dict[str, tuple[str, AgentState]]:
    return {name: (agent.host, agent.state) for name, agent in follower.agents.items()}


def write(api: KubeApi, written: list[Object]) -> None:
    api.put("services", *(service(f"agent-{owner}") for owner in range(SLICES)))
    api.put("endpointslices", *written)


async def disturb(api: KubeApi, chance: random.Random) -> None:
    """Some trouble, as often as none."""
    what = chance.randrange(12)
    if what < 2:
        api.interrupt(chance.choice(["cut", "gone", "end", "stale-bookmark"]))
    elif what < 4:
        api.interrupt("cut", "endpointslices")
        api.fault(**chance.choice(FAULTS))
    elif what == 4:
        api.tell("compact")
        api.interrupt("end")
    elif what == 5:
        await asyncio.to_thread(api.down)


def change(chance: random.Random, written: list[Object]) -> int:
    """Another state, address or pod somewhere; the number of the slice."""
    number = chance.randrange(SLICES)
    endpoints = written[number]["endpoints"]
    at = chance.randrange(len(endpoints))
    if chance.random() < 0.2:
        host = f"10.1.{number}.{chance.randrange(250)}"
        endpoints[at] = pod(endpoints[at]["targetRef"]["name"], host, uid=f"uid-{chance.random()}")
    else:
        others = [each for each in (READY, UNREADY, ENDING) if each != endpoints[at]["conditions"]]
        endpoints[at]["conditions"] = dict(chance.choice(others))
    return number


@pytest.mark.slow
async def test_each_of_300_flaps_is_followed_within_a_second_whatever_goes_wrong(api: KubeApi) -> None:
    chance = random.Random(20)
    written = slices()
    write(api, written)
    times = []
    async with following(api) as follower:
        await follower.until(lambda: seen(follower) == truth(written))
        for _ in range(300):
            await disturb(api, chance)
            api.put("endpointslices", written[change(chance, written)])
            api.up()
            times.append(await follower.until(lambda: seen(follower) == truth(written)))
        await follower.watching(30)  # of Services nothing but trouble was heard: that watch waits for long by now
        assert len(api.requests("list")) > 20
        assert len(api.requests("watch")) > 100
    # A machine that is busy with other things may be late now and then.
    assert sorted(times)[-4] < 1.0


async def test_flaps_that_come_faster_than_anybody_looks_end_at_the_servers_state(api: KubeApi) -> None:
    write(api, slices())
    async with following(api) as follower:
        await follower.watching()
        api.tell("flap", count=300, interval_s=0.001, seed=7)
        flaps: list[Object] = []
        while len(flaps) < 300:
            await asyncio.sleep(0.05)
            flaps = (await asyncio.to_thread(api.tell, "truth"))["flaps"]
        assert [each["at"] for each in flaps] == sorted(each["at"] for each in flaps)
        expected = truth(api.tell("all", plural="endpointslices"))
        await follower.until(lambda: seen(follower) == expected)
