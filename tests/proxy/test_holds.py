"""What becomes of what a caller sends while it is held because it ignores retry-after."""

from __future__ import annotations

import asyncio
from time import perf_counter

from gateway.overload import Door, OverloadSpec, Push
from gateway.proxy.arrival import STALE_AFTER_S, Holds


class Held:
    """A connection that is told to wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.held = False
        self.let_go_as: asyncio.Future[bool] = loop.create_future()

    def hold(self) -> None:
        self.held = True

    def let_go(self, *, stale: bool) -> None:
        self.let_go_as.set_result(stale)


def door(loop: asyncio.AbstractEventLoop) -> Door:
    return Door(OverloadSpec(), soon=loop.call_soon, clock=perf_counter, work=perf_counter, random=lambda: 0.0)


async def held(holds: Holds, until_s: float) -> bool:
    """Whether what a connection sent while it was held for so long counts as too late."""
    connection = Held(asyncio.get_running_loop())
    holds.hold(connection, Push.HOLD, perf_counter() + until_s)  # type: ignore[arg-type]
    assert connection.held
    async with asyncio.timeout(10):
        return await connection.let_go_as


async def test_what_was_sent_during_a_long_hold_has_waited_too_long() -> None:
    loop = asyncio.get_running_loop()
    busy = door(loop)
    busy.turned_away_at = perf_counter() + 60  # there is no room
    assert await held(Holds(loop, busy), 2 * STALE_AFTER_S) is True


async def test_nor_is_it_served_when_there_is_room_at_last() -> None:
    loop = asyncio.get_running_loop()
    busy = door(loop)
    busy.turned_away_at = perf_counter() + 2 * STALE_AFTER_S
    assert await held(Holds(loop, busy), 60) is True


async def test_who_is_let_go_at_once_since_there_is_room_is_served() -> None:
    loop = asyncio.get_running_loop()
    assert await held(Holds(loop, door(loop)), 60) is False
