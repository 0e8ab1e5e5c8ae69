"""A table of leases whose time a test can let pass: in memory by the time told, in Redis by setting leases back."""

from __future__ import annotations

from redis import Redis

from gateway.leases import LeaseSpec, LeaseTable, Taken, Use
from gateway.leases.redis_leases import RedisLeases


class Stage:
    """One dialogue's table."""

    def __init__(self, table: LeaseTable, spec: LeaseSpec) -> None:
        self.table = table
        self.spec = spec
        self.now = 1_800_000_000.0
        self.known: dict[str, Use] = {}
        """What is known of agents; the others are ready."""

    async def take(self, key: bytes, wanted: str) -> Taken:
        taken = await self.table.take(key, wanted=wanted, usable=self.usable, now=self.now)
        assert taken is not None, self.table.trouble
        return taken

    async def packet(self, key: bytes, wanted: str) -> Taken:
        """A packet whose exchange is over at once."""
        self.table.hold(key)
        taken = await self.take(key, wanted)
        self.table.release(key, self.now)
        return taken

    def usable(self, owner: str) -> Use:
        return self.known.get(owner, Use.KEEP)

    async def pass_idle_time(self) -> None:
        """All that is not held goes idle."""
        for _ in range(2):
            await self.pass_time(self.spec.idle_s * 2 / 3)

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds


class RedisStage(Stage):
    """The same in Redis."""

    def __init__(self, table: RedisLeases, spec: LeaseSpec, url: str) -> None:
        super().__init__(table, spec)
        self._leases = table
        self._url = url

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        set_back(self._url, seconds)
        await self._leases.renew()


def set_back(url: str, seconds: float) -> None:
    """Let every lease be older than it is, or forgotten."""
    with Redis.from_url(url) as redis:
        for key in redis.scan_iter(b"phoenixflight:lease:*"):
            left_ms = redis.pttl(key) - round(seconds * 1000)
            if left_ms <= 0:
                redis.delete(key)
            else:
                for field in redis.hkeys(key):
                    if field == b"at" or field.startswith(b"by:"):
                        redis.hincrby(key, field, -round(seconds * 1000))
                redis.pexpire(key, left_ms)
