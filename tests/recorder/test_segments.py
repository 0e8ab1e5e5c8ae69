"""Files of a chain: torn ends are repaired, old ones removed, and both are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.recorder.folder import verify_folder
from gateway.recorder.reader import Reader
from gateway.recorder.segments import ChainFolder, InUseError, segments_in
from gateway.recorder.verify import Report
from tests.policy.worlds import NOON
from tests.recorder.making import Clock, add, chain_in, conversation, made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "chain-0"


def report(folder: Path) -> Report:
    (found,) = verify_folder(folder)
    return found.report


def killed(chain: ChainFolder) -> None:
    """As of SIGKILL: nothing more is written, and the lock is gone."""
    chain._let_go()


def test_a_chain_goes_on_where_it_ended(folder: Path) -> None:
    for _ in range(5):
        chain = chain_in(folder)
        add(chain, made(), made())
        chain.close()
    found = report(folder)
    assert (found.flaw, found.records, found.files) == (None, 10, 1)


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_torn_end_is_set_aside_told_and_gone_on_from(folder: Path, cut: int) -> None:
    chain = chain_in(folder)
    add(chain, made(), made())
    chain.sync()
    add(chain, made(conversation("torn")))
    killed(chain)
    (path,) = segments_in(folder)
    os.truncate(path, path.stat().st_size - cut)
    assert report(folder).flaw is None, "what is beyond the last sync may be torn"
    assert report(folder).torn_bytes
    chain = chain_in(folder)
    add(chain, made())
    chain.close()
    found = report(folder)
    assert (found.flaw, found.records, found.torn_bytes) == (None, 3, 0)
    assert b'"kind":"repaired"' in path.read_bytes()
    (torn,) = folder.glob("torn-*")
    assert torn.stat().st_size


def test_zeros_that_a_power_cut_leaves_behind_are_a_torn_end(folder: Path) -> None:
    chain = chain_in(folder)
    add(chain, made())
    chain.sync()
    killed(chain)
    (path,) = segments_in(folder)
    with path.open("ab") as file:
        file.write(bytes(4096))
    chain = chain_in(folder)
    add(chain, made())
    chain.close()
    assert (report(folder).flaw, report(folder).records) == (None, 2)


def test_a_file_that_had_just_been_begun_is_begun_again(folder: Path) -> None:
    chain = chain_in(folder)
    add(chain, made())
    chain.close()
    (folder / "segment-00000002.jsonl").write_bytes(b'{"seq":')
    chain = chain_in(folder)
    add(chain, made())
    chain.close()
    assert (report(folder).flaw, report(folder).records) == (None, 2)


@pytest.mark.parametrize("how", ["cut", "cut within a line", "all files", "head.json"])
def test_what_was_lost_before_a_start_stays_found_after_it(folder: Path, how: str) -> None:
    """A gateway that starts repairs what a crash leaves; it never makes a loss look like one."""
    chain = chain_in(folder)
    add(chain, *(made() for _ in range(5)))
    chain.close()
    (path,) = segments_in(folder)
    text = path.read_bytes().splitlines(keepends=True)
    match how:
        case "cut":
            path.write_bytes(b"".join(text[:-2]))
        case "cut within a line":
            path.write_bytes(b"".join(text)[:-10])
        case "all files":
            path.unlink()
        case _:
            (folder / "head.json").unlink()
    for _ in range(2):
        chain = chain_in(folder)
        add(chain, made())
        chain.close()
    assert report(folder).flaw is not None
    assert len(list(Reader(folder).records())) >= 2


def test_only_one_process_adds_to_a_chain_and_the_next_takes_another(folder: Path) -> None:
    chain = chain_in(folder)
    with pytest.raises(InUseError):
        chain_in(folder)
    other = ChainFolder.claim(folder.parent, chain._spec, None, clock=Clock(), entropy=os.urandom)
    assert other.folder.name == "chain-1"
    chain.close()
    third = ChainFolder.claim(folder.parent, chain._spec, None, clock=Clock(), entropy=os.urandom)
    assert third.folder == folder
    third.close()
    other.close()
    assert [each.report.flaw for each in verify_folder(folder.parent)] == [None, None]


def test_files_are_of_bounded_size_and_the_oldest_go_when_there_are_too_many(folder: Path) -> None:
    chain = chain_in(folder, segment_bytes=65536, max_bytes=1024 * 1024)
    for _ in range(3000):
        add(chain, made())
    chain.close()
    sizes = [path.stat().st_size for path in segments_in(folder)]
    assert max(sizes) < 2 * 65536
    assert 768 * 1024 < sum(sizes) < 1024 * 1024 + 2 * 65536
    assert (chain.closed_segments, chain.closed_bytes) == (len(sizes) - 1, sum(sizes[:-1]))
    found = report(folder)
    assert found.flaw is None
    assert found.removed_through > 0
    segments_in(folder)[0].unlink()
    gone = report(folder).flaw
    assert gone is not None
    assert "nothing says that it was removed" in gone.message


def test_files_are_closed_and_removed_for_their_age(folder: Path) -> None:
    clock = Clock()
    chain = chain_in(folder, clock, segment_age_s="60s", max_age_s="1h")
    add(chain, made())
    assert not chain.full
    clock.now += 61
    add(chain, made())
    assert len(segments_in(folder)) == 2
    for path in segments_in(folder):
        os.utime(path, (clock.now, clock.now))
    clock.now = NOON + 5000
    chain.retain()
    assert len(segments_in(folder)) == 1, "a new one"
    chain.close()
    assert (report(folder).flaw, report(folder).records) == (None, 0)


def test_a_removal_that_ends_halfway_leaves_a_chain_that_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = chain_in(folder, max_age_s="60s")
    for _ in range(4):
        add(chain, made())
        chain.rotate()
    for path in segments_in(folder):
        os.utime(path, (0, 0))
    removed: list[Path] = []
    unlink = Path.unlink

    def twice(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == 2:
            raise OSError("killed")
        removed.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", twice)
        with pytest.raises(OSError, match="killed"):
            chain.retain()
    killed(chain)
    assert len(segments_in(folder)) == 3
    assert report(folder).flaw is None


def test_a_write_that_fails_leaves_the_chain_as_it_was(folder: Path) -> None:
    chain = chain_in(folder)
    add(chain, made())
    before, size = chain.position, chain.size
    good, chain._file = chain._file, os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space"):
        add(chain, made())
    os.close(chain._file)
    chain._file = good
    os.write(good, b'{"seq":')  # as much as there was room for
    assert (chain.position, chain.size) == (before, size)
    add(chain, made())
    chain.close()
    assert (report(folder).flaw, report(folder).records) == (None, 2)
