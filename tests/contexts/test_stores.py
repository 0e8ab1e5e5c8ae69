"""The same of every store: a folder, a real Redis, a real S3 server."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.contexts import Contexts, ContextSpec, Event, Put, StoreError, new_key
from gateway.contexts.cipher import OVERHEAD_BYTES, DamagedError
from gateway.contexts.opening import opened
from tests.contexts.s3_server import PROGRAM, S3Server
from tests.redis_server import RedisServer

ALICE, BOB, CAROL, MALLORY = (f"spiffe://mesh.local/ns/agents/sa/{name}" for name in ("a", "b", "c", "m"))
BODY = b"the plan, and what was said about it"
DIGEST = sha256(BODY).hexdigest()


class Clock:
    """What the store takes for the time."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RedisServer | S3Server]]:
    """Those that are installed."""
    folder = tmp_path_factory.mktemp("servers")
    found: dict[str, RedisServer | S3Server] = {}
    if shutil.which("redis-server") is not None:
        found["redis"] = RedisServer(folder)
    if PROGRAM.exists():
        found["s3"] = S3Server(folder, PROGRAM)
    yield found
    for each in found.values():
        each.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["disk", "redis", "s3"])
async def contexts(
    request: pytest.FixtureRequest, servers: dict[str, RedisServer | S3Server], tmp_path: Path, clock: Clock
) -> AsyncIterator[Contexts]:
    store = request.param
    server = servers.get(store)
    if store != "disk" and server is None:
        pytest.skip(f"no server for {store} is installed")
    key = tmp_path / "key"
    key.write_text(new_key())
    content: dict[str, object] = {"store": store, "keys": [key], "maxCount": 3, "maxBytes": 4000}
    if store == "disk":
        content["folder"] = tmp_path / "contexts"
    if isinstance(server, S3Server):
        content["s3"] = {
            "endpoint": server.endpoint,
            "bucket": "contexts",
            "credentials": server.credentials,
            "prefix": f"{tmp_path.name}/",
        }
    spec = ContextSpec.model_validate(content)
    made = opened(spec, server.url if isinstance(server, RedisServer) else "", clock)
    yield made
    for conversation in ("c-1", "c-2"):
        await made.erase(conversation)
    await made.close()


async def test_whoever_stored_it_gets_the_same_bytes_and_nobody_else_any(contexts: Contexts) -> None:
    assert await contexts.put("c-1", DIGEST, BODY, ALICE) is Put.STORED
    assert await contexts.get("c-1", DIGEST, [ALICE]) == BODY
    assert await contexts.get("c-1", DIGEST, [MALLORY]) is None
    assert await contexts.get("c-2", DIGEST, [ALICE]) is None
    assert await contexts.get("c-1", "00" * 32, [ALICE]) is None


async def test_only_who_may_read_it_can_let_others_read_it(contexts: Contexts) -> None:
    await contexts.put("c-1", DIGEST, BODY, ALICE)
    assert not await contexts.grant("c-1", DIGEST, [MALLORY], MALLORY)
    assert not await contexts.grant("c-1", "00" * 32, [ALICE], BOB)
    assert await contexts.get("c-1", DIGEST, [MALLORY]) is None
    assert await contexts.grant("c-1", DIGEST, [ALICE], BOB)
    assert await contexts.grant("c-1", DIGEST, [BOB], CAROL)
    assert await contexts.get("c-1", DIGEST, [CAROL]) == BODY


async def test_those_that_the_work_came_from_may_read_what_was_stored_for_it(contexts: Contexts) -> None:
    await contexts.put("c-1", DIGEST, BODY, BOB, lineage=[ALICE])
    assert await contexts.get("c-1", DIGEST, [ALICE]) == BODY


async def test_what_comes_again_is_kept_once_at_the_expense_of_the_first(contexts: Contexts) -> None:
    await contexts.put("c-1", DIGEST, BODY, ALICE)
    for _ in range(4):
        assert await contexts.put("c-1", DIGEST, BODY, BOB) is Put.KEPT
    assert await contexts.get("c-1", DIGEST, [BOB]) == await contexts.get("c-1", DIGEST, [ALICE]) == BODY
    bodies = [b"%d" % number for number in range(3)]
    found = [await contexts.put("c-1", sha256(body).hexdigest(), body, BOB) for body in bodies]
    assert found == [Put.STORED] * 3


async def test_a_principal_has_room_for_so_many_bytes_and_contexts(contexts: Contexts) -> None:
    big = bytes(4001 - 2 * OVERHEAD_BYTES - len(BODY))
    await contexts.put("c-1", DIGEST, BODY, ALICE)
    assert await contexts.put("c-2", sha256(big).hexdigest(), big, ALICE) is Put.OVER_QUOTA
    assert await contexts.put("c-2", sha256(big[1:]).hexdigest(), big[1:], ALICE) is Put.STORED
    assert await contexts.put("c-2", sha256(big).hexdigest(), big, BOB) is Put.STORED
    assert await contexts.erase("c-2") == 2
    for number in range(2):
        body = b"%d" % number
        assert await contexts.put("c-1", sha256(body).hexdigest(), body, ALICE) is Put.STORED
    assert await contexts.put("c-1", sha256(b"x").hexdigest(), b"x", ALICE) is Put.OVER_QUOTA
    assert contexts.counts[Event.QUOTA] == 2


async def test_what_is_erased_is_gone_for_all_and_other_conversations_stay(contexts: Contexts) -> None:
    for conversation in ("c-1", "c-2"):
        await contexts.put(conversation, DIGEST, BODY, ALICE)
    assert await contexts.erase("c-1") == 1
    assert await contexts.erase("c-1") == 0
    assert await contexts.get("c-1", DIGEST, [ALICE]) is None
    assert await contexts.get("c-2", DIGEST, [ALICE]) == BODY
    await contexts.put("c-1", DIGEST, BODY, BOB)
    assert await contexts.get("c-1", DIGEST, [ALICE]) is None, "who might read it before may not now"


async def test_what_is_too_old_is_gone_and_storing_it_again_makes_it_young(contexts: Contexts, clock: Clock) -> None:
    begun = clock.now
    await contexts.put("c-1", DIGEST, BODY, ALICE)
    clock.now = begun + 20 * 3600
    await contexts.put("c-1", DIGEST, BODY, ALICE)
    clock.now = begun + 40 * 3600
    assert await contexts.get("c-1", DIGEST, [ALICE]) == BODY
    clock.now = begun + 44 * 3600
    assert await contexts.get("c-1", DIGEST, [ALICE]) is None


async def test_bytes_that_are_not_those_of_the_digest_are_not_kept(contexts: Contexts) -> None:
    with pytest.raises(ValueError, match="not the one"):
        await contexts.put("c-1", DIGEST, BODY + b".", ALICE)
    assert await contexts.get("c-1", DIGEST, [ALICE]) is None


# -- on a disk ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def on_disk(tmp_path: Path, folder: Path, clock: Clock) -> Contexts:
    key = tmp_path / "key"
    key.write_text(new_key())
    return opened(ContextSpec(keys=(key,), folder=folder), "", clock)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode for path in (folder, *folder.rglob("*")) if path.is_file() or path == folder}


async def test_nothing_of_what_is_kept_or_whose_it_is_can_be_read_on_the_disk(on_disk: Contexts, folder: Path) -> None:
    await on_disk.put("the-conversation", DIGEST, BODY, ALICE)
    text = b"".join(name.encode() + content for name, content in everything(folder).items())
    for word in (BODY, b"the plan", b"the-conversation", b"spiffe", b"mesh.local"):
        assert word not in text
    assert {mode & 0o077 for mode in modes(folder)} == {0}


async def test_a_byte_that_was_flipped_on_the_disk_is_found(on_disk: Contexts, folder: Path) -> None:
    await on_disk.put("c-1", DIGEST, BODY, ALICE)
    (path,) = (folder / "contexts").rglob(DIGEST)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        await on_disk.get("c-1", DIGEST, [ALICE])
    assert on_disk.counts[Event.DAMAGED] == 1


async def test_bytes_moved_to_another_conversation_are_found(on_disk: Contexts, folder: Path) -> None:
    for conversation in ("c-1", "c-2"):
        await on_disk.put(conversation, DIGEST, BODY, ALICE)
    one, other = (folder / "contexts").rglob(DIGEST)
    one.write_bytes(other.read_bytes())
    found = []
    for conversation in ("c-1", "c-2"):
        try:
            found.append(await on_disk.get(conversation, DIGEST, [ALICE]))
        except DamagedError:
            found.append(None)
    assert sorted(each is None for each in found) == [False, True]


async def test_a_sweep_leaves_nothing_of_what_is_too_old(on_disk: Contexts, folder: Path, clock: Clock) -> None:
    await on_disk.put("c-1", DIGEST, BODY, ALICE)
    await on_disk.grant("c-1", DIGEST, [ALICE], BOB)
    clock.now += 24 * 3600
    young = sha256(b"young").hexdigest()
    await on_disk.put("c-2", young, b"young", ALICE)
    assert await on_disk._store.sweep(clock.now) == 1
    assert {name.partition("/")[0] for name in everything(folder)} == {"lock", "contexts", "readers", "accounts"}
    assert all(DIGEST not in name for name in everything(folder))
    assert await on_disk.get("c-2", young, [ALICE]) == b"young"


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").touch()
    key = tmp_path / "key"
    key.write_text(new_key())
    contexts = opened(ContextSpec(keys=(key,), folder=tmp_path / "file"), "", clock)
    with pytest.raises(StoreError, match="file"):
        await contexts.put("c-1", DIGEST, BODY, ALICE)
    assert contexts.counts[Event.UNAVAILABLE] == 1


async def test_two_processes_may_share_a_folder_and_a_principal_s_room(
    tmp_path: Path, folder: Path, clock: Clock
) -> None:
    key = tmp_path / "key"
    key.write_text(new_key())
    spec = ContextSpec(keys=(key,), folder=folder, max_count=1)
    one, other = opened(spec, "", clock), opened(spec, "", clock)
    await one.put("c-1", DIGEST, BODY, ALICE)
    assert await other.get("c-1", DIGEST, [ALICE]) == BODY
    assert await other.put("c-1", sha256(b"x").hexdigest(), b"x", ALICE) is Put.OVER_QUOTA
