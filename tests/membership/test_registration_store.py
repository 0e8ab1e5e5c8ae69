"""Who owns which name, and until when, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gateway.membership.registration import Registration
from gateway.membership.registration_store import RegistrationMemory, RegistrationStore, Stored
from gateway.routing import Protocol

LEASE_S, DRAIN_S = 10.0, 5.0
MAX_ALL, MAX_EACH = 3, 2

names, owners = st.sampled_from("abcde"), st.sampled_from("xy")
steps = st.lists(
    st.tuples(st.just("put"), names, owners)
    | st.tuples(st.just("retire"), names, owners)
    | st.tuples(st.just("drop"), names, owners)
    | st.tuples(st.just("wait"), st.sampled_from([1.0, 5.0, 10.0]))
    | st.tuples(st.just("sweep")),
    max_size=40,
)


def registration(name: str, owner: str) -> Registration:
    return Registration(name, owner, "h", 1, ("c",), False, 1.0, (), Protocol.HTTP1, "", LEASE_S, "p/r", ("*",))


class Naive:
    """What the page says, without any cleverness: name to owner, end and whether it drains."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._all: dict[str, tuple[str, float, bool]] = {}

    def live(self) -> dict[str, tuple[str, float, bool]]:
        return {name: held for name, held in self._all.items() if held[1] > self._clock()}

    def put(self, name: str, owner: str) -> Stored:
        live = self.live()
        if name in live and live[name][0] != owner:
            return Stored.TAKEN
        if name not in live:
            if sum(held[0] == owner for held in live.values()) >= MAX_EACH:
                return Stored.TOO_MANY
            if len(live) >= MAX_ALL:
                return Stored.FULL
        self._all[name] = owner, self._clock() + LEASE_S, False
        return Stored.RENEWED if name in live else Stored.CREATED

    def retire(self, name: str, owner: str, drain_s: float) -> Stored:
        if self.live().get(name, ("",))[0] != owner:
            return Stored.UNKNOWN
        self._all[name] = owner, self._clock() + drain_s, True
        return Stored.RETIRED


@given(steps)
def test_leases_owners_drains_and_bounds_are_those_of_the_page(script: list[tuple[str, ...]]) -> None:
    asyncio.run(follow(script))


async def follow(script: list[tuple[str, ...]]) -> None:
    now = 0.0
    store = RegistrationMemory(max_registrations=MAX_ALL, max_per_principal=MAX_EACH, clock=lambda: now)
    naive = Naive(lambda: now)
    view: dict[str, bool] = {}

    def changed(names: list[str]) -> None:
        for name in names:
            held = store.get(name)
            view.pop(name, None)
            if held is not None:
                view[name] = held.draining

    store.on_change = changed
    for step in script:
        match step:
            case ("put", name, owner):
                assert await store.put(registration(name, owner)) is naive.put(name, owner)
            case ("retire", name, owner):
                assert await store.retire(name, owner, DRAIN_S) is naive.retire(name, owner, DRAIN_S)
            case ("drop", name, owner):
                assert await store.retire(name, owner, 0) is naive.retire(name, owner, 0)
            case ("wait", seconds):
                now += seconds
            case _:
                store.sweep()
        live = naive.live()
        assert {name: store.get(name) is not None for name in "abcde"} == {name: name in live for name in "abcde"}
        for name, (owner, until, draining) in live.items():
            held = store.get(name)
            assert (held.owner, held.draining, store.expires_in_s(name)) == (owner, draining, until - now)
    store.sweep()
    assert view == {name: draining for name, (_, _, draining) in naive.live().items()}, "every change was told"
    assert store.count == len(view)


async def test_leases_end_while_it_runs() -> None:
    now = 0.0
    store: RegistrationStore = RegistrationMemory(clock=lambda: now, sweep_interval_s=0.001)
    gone = asyncio.Event()
    await store.put(registration("a", "x"))
    store.on_change = lambda _: gone.set()
    running = asyncio.create_task(store.run())
    now = LEASE_S
    async with asyncio.timeout(10):
        await gone.wait()
    assert (store.get("a"), store.lost, store.count) == (None, 1, 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
