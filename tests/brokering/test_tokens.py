"""How long tokens are kept, and what is taken from a server's answer."""

from __future__ import annotations

import asyncio

import pytest

from gateway.brokering import servers
from gateway.brokering.secrets import read_secrets
from gateway.brokering.tokens import NEGATIVE_S, Fetch, NoToken, Token, TokenCache


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Gives tokens that live so long, or none."""

    def __init__(self, clock: Clock, life_s: float | None = 300) -> None:
        self.clock, self.life_s, self.asked = clock, life_s, 0

    async def __call__(self) -> Token | NoToken:
        self.asked += 1
        await asyncio.sleep(0)
        if self.life_s is None:
            return NoToken(Fetch.REFUSED)
        return Token(f"t-{self.asked}", self.clock(), self.clock() + self.life_s)


@pytest.mark.parametrize(("life_s", "fresh_s"), [(300, 270), (3600, 3570), (10, 9)])
async def test_a_token_is_used_until_shortly_before_it_ends(life_s: float, fresh_s: float) -> None:
    clock = Clock()
    cache, source = TokenCache(clock), Source(clock, life_s)
    first = await cache.get("a", source)
    clock.now += fresh_s - 0.1
    assert await cache.get("a", source) is first
    clock.now += 0.2
    assert await cache.get("a", source) is not first
    assert source.asked == 2


async def test_that_there_is_none_is_remembered_for_a_moment() -> None:
    clock = Clock()
    cache, source = TokenCache(clock), Source(clock, None)
    await cache.get("a", source)
    clock.now += NEGATIVE_S - 0.1
    assert await cache.get("a", source) == NoToken(Fetch.REFUSED)
    assert source.asked == 1
    source.life_s = 300
    clock.now += 0.2
    assert isinstance(await cache.get("a", source), Token)


async def test_who_goes_away_while_waiting_takes_nothing_from_the_others() -> None:
    cache, source = TokenCache(Clock()), Source(Clock())
    waiting = [asyncio.ensure_future(cache.get("a", source)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1] is found[2]
    assert source.asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"[]",
        b'{"access_token": "a", "expires_in": 10}',
        b'{"access_token": "a", "token_type": "mac", "expires_in": 10}',
        b'{"access_token": "a\\r\\nx: y", "token_type": "Bearer", "expires_in": 10}',
        b'{"access_token": "a", "token_type": "Bearer", "expires_in": 0}',
        b'{"access_token": "", "token_type": "Bearer", "expires_in": 10}',
    ],
)
def test_an_answer_that_is_no_token_is_none(answer: bytes) -> None:
    assert servers._read(answer, 0.0) == NoToken(Fetch.MALFORMED)


def test_a_token_shows_itself_to_nobody() -> None:
    token = servers._read(b'{"access_token": "hidden", "token_type": "bearer", "expires_in": "90"}', 5.0)
    assert isinstance(token, Token)
    assert (token.text, token.expires) == ("hidden", 95.0)
    assert "hidden" not in repr(token)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "one line of printable ASCII"),
        (b"s3cret\x00", "one line of printable ASCII"),
        (b"s3cret\r\nx: y", "one line of printable ASCII"),
        ("s3crét".encode(), "one line of printable ASCII"),
        (b"s3cret" * 2000, "larger than 8192 bytes"),
        (None, "No such file"),
    ],
)
def test_a_file_without_a_usable_secret_is_told_of_without_it(tmp_path, content: bytes | None, told: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    secrets, (problem,) = read_secrets([file])
    assert secrets.get(file) is None
    assert told in problem.message
    assert "s3cr" not in str(problem)
