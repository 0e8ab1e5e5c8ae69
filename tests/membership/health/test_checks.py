"""Agents that are asked, and what becomes of those that are not well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

from gateway.membership.health import CheckSpec, CheckType, Health, HealthSpec, Reason
from gateway.membership.health.checks import AT_ONCE
from gateway.routing import Agent, AgentState
from tests.membership.health.fleet import Fleet, agent, no_tls
from tests.membership.health.servers import Http1Agent, until
from tests.waiting import free_port

WELL = b"HTTP/1.1 200 OK\r\n\r\n"
ILL = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
OFTEN = CheckSpec(interval_s="100ms", timeout_s="2s", unhealthy_threshold=2, healthy_threshold=2)


@asynccontextmanager
async def checked(
    agents: list[Agent], spec: HealthSpec, checks: dict[str, CheckSpec] | None = None
) -> AsyncIterator[Health]:
    """The health of `agents`, with checks under way."""
    health = Health(spec, on_change=lambda: None, clock=time.monotonic, rng=Random(1), context=no_tls)
    health.follow(agents, checks or {})
    running = asyncio.create_task(health.run())
    try:
        yield health
        assert not running.done(), running.exception()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def local(name: str, port: int) -> Agent:
    return Agent(name, "127.0.0.1", port, frozenset({"code.execute"}))


def out(health: Health, agents: list[Agent]) -> list[str]:
    return [each.name for each in health.overlay(agents) if each.state is AgentState.EJECTED]


async def test_an_agent_that_is_not_well_is_out_until_it_is() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(Http1Agent().running()) for _ in range(3)]
        agents = [local(f"a{number}", server.port) for number, server in enumerate(servers)]
        health = await stack.enter_async_context(checked(agents, HealthSpec(check=OFTEN)))
        await until(lambda: all(server.asked for server in servers))
        assert out(health, agents) == []
        servers[1].answer = ILL
        await until(lambda: out(health, agents) == ["a1"])
        assert health.ejections[Reason.UNHEALTHY] == 1
        assert health.status()["unhealthy"] == {"a1": "/healthz answered 503"}
        servers[1].answer = WELL
        await until(lambda: out(health, agents) == [])
        assert health.overlay(agents)[1].reliability == 0.125


async def test_when_many_are_not_well_the_rest_stay_in() -> None:
    agents = [local(f"a{number}", free_port()) for number in range(6)]
    async with checked(agents, HealthSpec(check=OFTEN)) as health:
        await until(lambda: len(health.status()["unhealthy"]) == 6)  # type: ignore[arg-type]
        assert len(out(health, agents)) == 2


async def test_an_agent_may_have_a_check_of_its_own() -> None:
    async with Http1Agent().running() as server:
        server.answer = ILL
        agents = [local("a0", server.port), local("a1", server.port)]
        async with checked(agents, HealthSpec(), {"a0": OFTEN}) as health:
            await until(lambda: out(health, agents) == ["a0"])
            health.follow(agents)  # from now on nobody asks it
            await until(lambda: out(health, agents) == [])


async def test_checks_go_on_for_members_that_join_and_end_for_those_that_leave() -> None:
    async with Http1Agent().running() as first, Http1Agent().running() as second:
        agents = [local("a0", first.port)]
        async with checked(agents, HealthSpec(check=OFTEN)) as health:
            await until(lambda: first.asked)
            health.follow([local("a1", second.port)])
            await until(lambda: len(second.asked) > 2)
            before = len(first.asked)
            await until(lambda: len(second.asked) > 6)
            assert len(first.asked) <= before + 1


async def test_no_more_than_a_bound_are_asked_at_once_and_each_gets_its_turn() -> None:
    async with Http1Agent().running() as server:
        server.slowness_s = 0.05
        agents = [local(f"a{number}", server.port) for number in range(300)]
        async with checked(agents, HealthSpec(check=CheckSpec(interval_s="200ms", timeout_s="10s"))):
            await until(lambda: len(server.asked) >= 600, 30)
    assert server.most_at_once <= AT_ONCE + 5  # the server notices a little late who has gone


async def test_who_answers_only_by_tcp_may_be_checked_so() -> None:
    async with Http1Agent().running() as server:
        server.answer = ILL
        agents = [local("a0", server.port), local("a1", free_port())]
        spec = HealthSpec(check=OFTEN.model_copy(update={"type": CheckType.TCP}))
        async with checked(agents, spec) as health:
            await until(lambda: out(health, agents) == ["a1"])


def test_thresholds_count_answers_in_a_row() -> None:
    three = Fleet([agent("a0"), agent("a1"), agent("a2")], HealthSpec(check=CheckSpec()))
    three.checked("a0", "no", "no", "", "no", "no")
    assert three.out == []
    three.checked("a0", "no")
    assert three.out == ["a0"]
    three.pass_s(600)
    assert three.out == ["a0"]
    three.checked("a0", "", "no", "")
    assert three.out == ["a0"]
    three.checked("a0", "")
    assert (three.out, three.share("a0")) == ([], 0.125)


def test_an_ejection_for_failures_lasts_its_time_though_the_checks_are_good() -> None:
    three = Fleet([agent("a0"), agent("a1"), agent("a2")], HealthSpec(check=CheckSpec()))
    three.fail("a0", 5)
    three.checked("a0", "", "", "", "", "")
    three.pass_s(29)
    assert three.out == ["a0"]
    three.pass_s(1)
    assert three.out == []


def test_an_agent_that_is_not_well_stays_out_when_its_ejection_for_failures_is_over() -> None:
    three = Fleet([agent("a0"), agent("a1"), agent("a2")], HealthSpec(check=CheckSpec()))
    three.fail("a0", 5)
    three.checked("a0", "no", "no", "no")
    three.pass_s(60)
    assert three.out == ["a0"]
    three.checked("a0", "", "")
    assert three.out == []


def test_a_place_that_becomes_free_is_taken_by_one_that_is_not_well() -> None:
    three = Fleet([agent("a0"), agent("a1"), agent("a2")], HealthSpec(check=CheckSpec()))
    three.fail("a0", 5)
    three.checked("a1", "no", "no", "no")
    assert three.out == ["a0"]
    three.pass_s(30)
    assert three.out == ["a1"]
