"""Whatever is done to a chain, it is found, and named; and erasure is told from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.packet.keys import Key
from gateway.recorder.erase import Request, erase_alone
from gateway.recorder.folder import verify_folder
from gateway.recorder.line import Kind, Position
from gateway.recorder.reader import Reader
from gateway.recorder.segments import chains_in, read_head, segments_in
from gateway.recorder.verify import Flaw, Report
from tests.recorder.making import KEY, SIGNER, add, chain_in, conversation, key_pair, made

RECORDS = 40


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files with records of four conversations."""
    folder = tmp_path_factory.mktemp("recorder") / "chain-0"
    chain = chain_in(folder)
    for number in range(RECORDS):
        add(chain, made(conversation(f"c-{number % 4}")))
        if number in (10, 25):
            chain.rotate()
    chain.close()
    return folder


def copied(chain: Path, folder: str) -> Path:
    return Path(shutil.copytree(chain, Path(folder) / "chain-0"))


@pytest.fixture
def chain(written: Path, tmp_path: Path) -> Path:
    return copied(written, str(tmp_path))


def report(chain: Path, *keys: Key, anchors: list[tuple[str, Position]] | None = None) -> Report:
    (found,) = verify_folder(chain.parent, keys, anchors or [])
    return found.report


def flaw(chain: Path, *keys: Key) -> Flaw:
    found = report(chain, *keys).flaw
    assert found is not None
    return found


def places(chain: Path) -> list[tuple[Path, int]]:
    """File and number, from 1, of each line, in the order of the chain."""
    return [
        (path, number)
        for path in segments_in(chain)
        for number in range(1, len(path.read_bytes().splitlines(keepends=True)) + 1)
    ]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_what_was_written_verifies_and_is_read_again(written: Path) -> None:
    found = report(written)
    assert found.flaw is None
    assert (found.files, found.records, found.end.sequence) == (3, RECORDS, RECORDS + 3)
    assert len(list(Reader(written.parent).records())) == RECORDS
    assert len(list(Reader(written).records(conversation="c-1"))) == RECORDS / 4


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_one_changed_byte_anywhere_is_found_in_its_line(written: Path, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        chain = copied(written, folder)
        sequence, (path, number) = data.draw(st.sampled_from(list(enumerate(places(chain), 1))))
        text = lines(path)
        line = bytearray(text[number - 1])
        at = data.draw(st.integers(0, len(line) - 1))
        line[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(b"".join([*text[: number - 1], bytes(line), *text[number:]]))
        found = flaw(chain)
        assert (found.file, found.line, found.sequence) == (str(path), number, sequence)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_line_that_is_gone_is_found_where_it_was(written: Path, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        chain = copied(written, folder)
        sequence, (path, number) = data.draw(st.sampled_from(list(enumerate(places(chain), 1))))
        text = lines(path)
        del text[number - 1]
        path.write_bytes(b"".join(text))
        assert flaw(chain).sequence == sequence


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_two_lines_that_changed_places_are_found_at_the_first(written: Path, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        chain = copied(written, folder)
        drawn = st.lists(st.sampled_from(list(enumerate(places(chain), 1))), min_size=2, max_size=2, unique=True)
        (first, (path, number)), (second, (other, other_number)) = data.draw(drawn)
        here, there = lines(path), lines(other)
        here[number - 1], there[other_number - 1] = there[other_number - 1], here[number - 1]
        if path == other:
            here[other_number - 1] = lines(path)[number - 1]
        else:
            other.write_bytes(b"".join(there))
        path.write_bytes(b"".join(here))
        assert flaw(chain).sequence == min(first, second)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_line_that_was_put_in_is_found(written: Path, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        chain = copied(written, folder)
        path, number = data.draw(st.sampled_from(places(chain)))
        text = lines(path)
        put = data.draw(st.sampled_from([b"\n", b"{}\n", text[0], text[-1], b" "]))
        path.write_bytes(b"".join([*text[:number], put, *text[number:]]))
        found = report(chain)
        # Behind all lines it cannot be told from what a crash leaves; it is no record, and it is told.
        assert found.flaw is not None or found.torn_bytes == len(put)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_tail_that_was_cut_is_found_wherever_it_was_cut(written: Path, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        chain = copied(written, folder)
        paths = segments_in(chain)
        last = data.draw(st.integers(0, len(paths) - 1))
        size = paths[last].stat().st_size
        with paths[last].open("r+b") as file:
            file.truncate(data.draw(st.integers(0, size - 1)))
        for path in paths[last + 1 :]:
            path.unlink()
        left = b"".join(path.read_bytes() for path in segments_in(chain)).count(b"\n")
        assert flaw(chain).sequence == left + 1


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_file_that_is_gone_is_found(chain: Path, which: int) -> None:
    segments_in(chain)[which].unlink()
    assert flaw(chain).message


def test_files_of_another_chain_are_found(chain: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "chain-0"
    stranger = chain_in(other)
    stranger.rotate()
    add(stranger, made())
    stranger.close()
    shutil.copy(segments_in(other)[1], segments_in(chain)[1])
    assert "another chain" in flaw(chain).message
    shutil.rmtree(chain)
    shutil.copytree(other, chain)
    (chain / "head.json").write_text((chain / "head.json").read_text().replace('"chain":"', '"chain":"0'))
    assert "head.json is of another chain" in flaw(chain).message


def test_without_the_file_that_says_how_far_it_goes_nothing_is_certain(chain: Path) -> None:
    (chain / "head.json").unlink()
    assert "head.json is missing" in flaw(chain).message


def test_what_is_rewritten_whole_is_found_only_against_a_note_or_a_signature(tmp_path: Path) -> None:
    """The limit of every hash chain: who may write all of it can write another one."""
    for name, count in (("true", 10), ("false", 12)):
        chain = chain_in(tmp_path / name / "chain-0", signer=SIGNER if name == "true" else None)
        add(chain, *(made() for _ in range(count)))
        chain.close()
    true, false = tmp_path / "true" / "chain-0", tmp_path / "false" / "chain-0"
    head = read_head(true)
    assert head is not None
    noted = [("chain-0", Position(head.sequence, head.hash))]
    assert report(true, KEY, anchors=noted).flaw is None
    assert report(false).flaw is None
    assert report(false, anchors=noted).flaw is not None
    assert "not signed by a key that was given" in flaw(false, KEY).message


@pytest.mark.parametrize("private", [Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())])
def test_signed_heads_hold_for_their_key_and_no_other(
    private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    signer, key = key_pair(private)
    chain = chain_in(tmp_path / "chain-0", signer=signer)
    add(chain, made(), made())
    chain.sign()
    add(chain, made())
    chain.rotate()
    chain.close()
    found = report(chain.folder, KEY, key)
    assert (found.flaw, found.heads) == (None, 2)
    assert report(chain.folder).flaw is None, "nobody has to check"
    assert "not by a key that was given" in flaw(chain.folder, KEY).message


# -- erasure --------------------------------------------------------------------------------------------


def erase(folder: Path, name: str) -> int:
    chain = chain_in(folder)
    count = erase_alone(chain, Request("r1", name), 0.0)
    chain.close()
    return count


def test_an_erased_conversation_is_gone_and_the_chain_holds(chain: Path) -> None:
    assert erase(chain, "c-1") == RECORDS / 4
    found = report(chain)
    assert (found.flaw, found.records, found.erased) == (None, RECORDS, RECORDS / 4)
    assert not list(Reader(chain).records(conversation="c-1"))
    assert len(list(Reader(chain).records())) == RECORDS * 3 / 4
    assert not any(b'"c-1"' in path.read_bytes() for path in chain.iterdir())
    assert erase(chain, "c-1") == 0, "it may be asked again"
    assert report(chain).flaw is None


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_record_that_was_only_taken_out_is_told_from_an_erased_one(written: Path, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        chain = copied(written, folder)
        erase(chain, "c-1")
        sequence, (path, number) = data.draw(st.sampled_from(list(enumerate(places(chain), 1))))
        text = lines(path)
        begin, record, _ = text[number - 1].partition(b',"salt"')
        if not record:
            return  # it has been erased
        text[number - 1] = begin + b"}\n"
        path.write_bytes(b"".join(text))
        found = flaw(chain)
        assert (found.file, found.line, found.sequence) == (str(path), number, sequence)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_after_an_erasure_changes_are_found_as_before(written: Path, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        chain = copied(written, folder)
        erase(chain, data.draw(st.sampled_from(["c-0", "c-3"])))
        sequence, (path, number) = data.draw(st.sampled_from(list(enumerate(places(chain), 1))))
        text = lines(path)
        line = bytearray(text[number - 1])
        line[data.draw(st.integers(0, len(line) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(b"".join([*text[: number - 1], bytes(line), *text[number:]]))
        found = flaw(chain)
        assert (found.file, found.line, found.sequence) == (str(path), number, sequence)


def test_only_the_conversation_of_that_name_is_erased(tmp_path: Path) -> None:
    chain = chain_in(tmp_path / "chain-0")
    task = (b"flight-task", b'"c"')
    add(chain, made(conversation("c")), made(conversation("c-1"), task), made(conversation('a"c')), made(task))
    assert erase_alone(chain, Request("r1", "c"), 0.0) == 1
    chain.close()
    assert len(list(Reader(tmp_path).records())) == 3


def test_erasure_leaves_each_chain_of_a_folder_to_itself(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "chain-0")
    shutil.copytree(written, tmp_path / "chain-1")
    erase(tmp_path / "chain-1", "c-0")
    assert [each.report.erased for each in verify_folder(tmp_path)] == [0, RECORDS / 4]
    assert [path.name for path in chains_in(tmp_path)] == ["chain-0", "chain-1"]


def kinds(chain: Path) -> Iterator[str]:
    for path in segments_in(chain):
        for line in lines(path):
            yield line.partition(b'"kind":"')[2].partition(b'"')[0].decode()


def test_an_erasure_is_a_record_itself(chain: Path) -> None:
    erase(chain, "c-2")
    assert list(kinds(chain)).count(Kind.ERASED.value) == 1
