"""The recorder beside an event loop: it holds up nothing, loses nothing unsaid, and says when it is in trouble."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.recorder import Reader, Recorder, RecorderSpec, writer
from gateway.recorder.compose import record_of
from gateway.recorder.erase import Request
from gateway.recorder.folder import verify_folder
from gateway.recorder.heads import Signer
from gateway.recorder.segments import ChainFolder
from tests.recorder.making import SIGNER, add, chain_in, conversation, decided, ended, made

Start = Callable[..., Recorder]


class Refusing(list[bool]):
    """What the recorder asked of the data plane."""


def recorder(folder: Path, refusing: Refusing | None = None, signer: Signer | None = None, **spec: Any) -> Recorder:
    settings = RecorderSpec(**{"folder": folder, "sync_interval_s": "50ms", **spec})
    told = Refusing() if refusing is None else refusing
    return Recorder(asyncio.get_running_loop(), settings, signer, told.append, clock=time.time, entropy=os.urandom)


def hand_off(running: Recorder, *more: tuple[bytes, bytes]) -> None:
    decision = decided(*more)
    handoff = ended(decision)
    running.add(handoff, decision, record_of(handoff, decision))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
async def test_what_ends_is_recorded_and_soon_the_disk_has_it(tmp_path: Path, fsync: str) -> None:
    running = recorder(tmp_path, fsync=fsync)
    for _ in range(100):
        hand_off(running)
    assert running.unsynced == 100
    await until(lambda: running.unsynced == 0)
    assert (running.records, running.lost, running.trouble) == (100, 0, "")
    hand_off(running)
    running.close()
    assert len(list(Reader(tmp_path).records())) == 101
    (found,) = verify_folder(tmp_path)
    assert (found.report.flaw, found.report.records) == (None, 101)


@pytest.mark.parametrize("on_failure", ["refuse", "continue"])
async def test_while_nothing_can_be_written_there_is_trouble_and_then_everything_is_caught_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_failure: str
) -> None:
    refusing = Refusing()
    running = recorder(tmp_path, refusing, on_failure=on_failure)
    hand_off(running)
    await until(lambda: running.records == 1)

    def full(chain: ChainFolder, text: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ChainFolder, "_write", full)
        for _ in range(200):
            hand_off(running)
        await until(lambda: running.trouble)
        assert "No space left on device" in running.trouble
        assert refusing == [True]
    await until(lambda: running.records == 201)
    await until(lambda: not running.trouble)
    assert refusing == [True, False]
    running.close()
    assert running.lost == 0
    assert len(list(Reader(tmp_path).records())) == 201


async def test_what_there_is_no_room_for_is_counted_and_told_in_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_PENDING", 100)
    monkeypatch.setattr(writer, "BEHIND", 50)
    monkeypatch.setattr(writer, "CAUGHT_UP", 10)
    refusing = Refusing()
    running = recorder(tmp_path, refusing)
    for _ in range(150):  # within one turn of the loop
        hand_off(running)
    assert running.lost == 50
    await until(lambda: refusing == [True, False])
    assert "behind" not in running.trouble
    running.close()
    (found,) = verify_folder(tmp_path)
    assert (found.report.flaw, found.report.records, found.report.lost) == (None, 100, 50)


async def test_a_conversation_is_erased_while_others_are_recorded(tmp_path: Path) -> None:
    running = recorder(tmp_path)
    for number in range(100):
        hand_off(running, conversation(f"c-{number % 2}"))
    await until(lambda: running.records == 100)
    request = Request("r1", "c-1").leave_in(tmp_path / "chain-0")

    def erased() -> bool:
        hand_off(running, conversation("c-0"))
        return not request.exists()

    await until(erased)
    running.close()
    assert not list(Reader(tmp_path).records(conversation="c-1"))
    (found,) = verify_folder(tmp_path)
    assert (found.report.flaw, found.report.erased) == (None, 50)


async def test_a_request_that_is_none_harms_nothing(tmp_path: Path) -> None:
    running = recorder(tmp_path)
    bad = tmp_path / "chain-0" / "erase-1.json"
    bad.write_text("{")
    await until(lambda: not bad.exists())
    hand_off(running)
    await until(lambda: running.records == 1)
    running.close()


@pytest.mark.parametrize("signer", [None, SIGNER])
async def test_a_chain_that_no_process_has_is_looked_after_too(tmp_path: Path, signer: Signer | None) -> None:
    for name in ("chain-0", "chain-1"):
        chain = chain_in(tmp_path / name, signer=signer)
        add(chain, made(conversation("c-1")))
        chain.close()
        for path in (tmp_path / name).glob("segment-*"):
            os.utime(path, (0, 0))
    running = recorder(tmp_path, signer=signer, max_age_s="60s")
    await until(lambda: not list(Reader(tmp_path).records()))
    running.close()
    assert [each.report.flaw for each in verify_folder(tmp_path)] == [None, None]
