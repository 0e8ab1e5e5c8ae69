"""What the gateway is doing can be seen while it does it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gateway.admin.profile import collapsed, read_collapsed, sample, speedscope
from gateway.admin.tasks import standing
from tests.waiting import eventually


def test_tasks_are_told_with_the_place_where_they_wait(admin: httpx.Client) -> None:
    told = admin.get("/debug/tasks").json()
    assert told["loop_lag_ms"] >= 0
    assert told["tasks"] == sum(place["count"] for place in told["places"])
    (keeping_up,) = [place for place in told["places"] if place["stack"][0].startswith("Gateway._keep_up ")]
    assert keeping_up["stack"][0].startswith("Gateway._keep_up (gateway/control/gateway.py:")
    assert keeping_up["stack"][1].startswith("Event.wait (asyncio/locks.py:")


def test_a_profile_tells_where_the_loop_was(admin: httpx.Client) -> None:
    lines = admin.get("/debug/profile?seconds=0.4&hz=100").text.splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) <= 41
    assert any("run (gateway/cli/run.py:" in line for line in lines)
    scope = admin.get("/debug/profile?seconds=0.2&hz=50&format=speedscope").json()
    assert scope["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    (profile,) = scope["profiles"]
    assert len(profile["samples"]) == len(profile["weights"])
    assert {number for stack in profile["samples"] for number in stack} == set(range(len(scope["shared"]["frames"])))


@pytest.mark.parametrize("query", ["seconds=0", "seconds=61", "seconds=nan", "hz=501", "hz=-1", "hz=x", "format=svg"])
def test_a_profile_is_bounded(admin: httpx.Client, query: str) -> None:
    answer = admin.get(f"/debug/profile?{query}")
    assert answer.status_code == 400
    assert answer.json()["why"].startswith(query.partition("=")[0])


def test_one_profile_is_taken_at_a_time_and_one_that_nobody_waits_for_ends(admin: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as pool:

        def refused_beside_one() -> bool:
            """One of two that come at a time is refused; whichever was first."""
            first = pool.submit(admin.get, "/debug/profile?seconds=0.5&hz=10")
            second = admin.get("/debug/profile?seconds=0.5&hz=10")
            return sorted((first.result().status_code, second.status_code)) == [200, 409]

        eventually(refused_beside_one)
    with pytest.raises(httpx.ReadTimeout):
        admin.get("/debug/profile?seconds=60&hz=10", timeout=0.5)
    eventually(lambda: admin.get("/debug/profile?seconds=0.01&hz=10").status_code == 200)


def test_a_profile_shows_what_a_thread_is_busy_with() -> None:
    stop = threading.Event()

    def busy_with_this() -> None:
        while not stop.is_set():
            time.sleep(0)

    thread = threading.Thread(target=busy_with_this)
    thread.start()
    assert thread.ident is not None
    try:
        samples = sample(thread.ident, 0.3, 100, threading.Event())
    finally:
        stop.set()
        thread.join()
    assert any("busy_with_this" in name for stack in samples for name in stack)
    assert sum(samples.values()) > 3
    assert sample(thread.ident, 0.1, 100, threading.Event()) == {}, "it is gone"


def test_a_profile_survives_being_written_and_read() -> None:
    samples = {("main (a.py:1)", "work; (b.py:2)"): 3, ("main (a.py:1)",): 1}
    text = collapsed(samples, "worker 0")
    assert text == "worker 0;main (a.py:1) 1\nworker 0;main (a.py:1);work: (b.py:2) 3\n"
    assert read_collapsed(collapsed(samples), "w") == {
        ("w", "main (a.py:1)"): 1,
        ("w", "main (a.py:1)", "work: (b.py:2)"): 3,
    }
    (profile,) = speedscope(samples, 2.0)["profiles"]  # type: ignore[misc]
    assert profile["endValue"] == 2.0


async def test_a_task_is_followed_to_where_it_stands() -> None:
    class Wrapped:
        def __await__(self):
            return inner().__await__()

    async def inner() -> None:
        await asyncio.sleep(30)

    async def generating() -> AsyncIterator[int]:
        await Wrapped()
        yield 1

    async def outer() -> None:
        async for _ in generating():
            pass

    tasks = [asyncio.create_task(outer(), name=f"t{number}") for number in range(2)]
    await asyncio.sleep(0)
    count, (place,) = standing(tasks)
    assert (count, place.count, place.names) == (2, 2, ["t0", "t1"])
    functions = [line.partition(" ")[0].rpartition(".")[2] for line in place.stack]
    assert functions[0] == "outer"
    assert functions[-2:] == ["inner", "sleep"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert standing(tasks) == (0, [])
