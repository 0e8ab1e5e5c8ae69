"""Files are read whole, bounded, and never half of one version and half of another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.control.files import MAX_READINGS, read_settled, read_sources, read_text
from gateway.documents import MAX_TEXT_BYTES, DocumentError
from tests.conftest import ConfigMap


def replace(path: Path, text: str) -> None:
    fresh = path.with_name(".fresh")
    fresh.write_text(text)
    os.replace(fresh, path)


def straddling(first: Path, second: Path, change: Callable[[], object], times: int = 1) -> Callable[[], str]:
    """Reads two files, and has `change` happen between them, so many times."""
    left = [change] * times

    def read() -> str:
        text = read_text(first)
        if left:
            left.pop()()
        return text + read_text(second)

    return read


def test_a_reading_that_straddles_a_swap_is_of_the_new_set_alone(tmp_path: Path) -> None:
    mount = ConfigMap(tmp_path / "mount", {"a.yaml": "1", "b.yaml": "1"})
    paths = mount.folder / "a.yaml", mount.folder / "b.yaml"
    read = straddling(*paths, lambda: mount.swap({"a.yaml": "2", "b.yaml": "2"}))
    assert read_settled(paths, read) == "22"


def test_so_is_one_of_plain_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for file in (first, second):
        file.write_text("1")

    def change() -> None:
        for file in (first, second):
            replace(file, "2")  # as long as before: it is another file all the same

    assert read_settled([first, second], straddling(first, second, change)) == "22"
    assert read_settled([tmp_path], straddling(first, second, lambda: replace(first, "3"))) == "32"


def test_a_file_that_vanishes_in_between_is_looked_for_again(tmp_path: Path) -> None:
    mount = ConfigMap(tmp_path / "mount", {"a.yaml": "1", "b.yaml": "1"})
    read = straddling(mount.folder / "a.yaml", mount.folder / "b.yaml", lambda: mount.swap({"a.yaml": "2"}))
    with pytest.raises(DocumentError, match=r"b\.yaml:1:1: No such file"):
        read_settled([mount.folder], read)


def test_files_that_keep_changing_are_refused(tmp_path: Path) -> None:
    first = tmp_path / "a.yaml"
    first.write_text("1")
    read = straddling(first, first, lambda: replace(first, "2"), MAX_READINGS)
    with pytest.raises(DocumentError, match=r"a\.yaml:1:1: it, or a file .* changed each time"):
        read_settled([first], read)


def test_between_a_swap_and_its_new_names_the_new_set_is_whole(tmp_path: Path) -> None:
    mount = ConfigMap(tmp_path / "mount", {"allow.yaml": "1"})
    fresh = mount.folder / "..2026_11_24_new"
    fresh.mkdir()
    (fresh / "deny.yaml").write_text("2")
    (mount.folder / "..data_tmp").symlink_to(fresh.name)
    os.replace(mount.folder / "..data_tmp", mount.folder / "..data")
    # The kubelet has yet to make the link deny.yaml, and to remove allow.yaml, which leads nowhere now.
    assert read_sources(mount.folder) == {str(mount.folder / "deny.yaml"): "2"}


def test_a_giant_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "giant.yaml"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)  # reading it all would end this process
    with pytest.raises(DocumentError, match=rf"giant\.yaml:1:1: larger than {MAX_TEXT_BYTES} bytes"):
        read_sources(tmp_path)


def test_what_would_keep_its_reader_waiting_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(DocumentError, match=r"pipe\.yaml:1:1: not a regular file"):
        read_sources(tmp_path)
