"""Lines of several writers in one pipe stay whole."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.lines import LineWriter, _pieces

LINES = 500


class Line(msgspec.Struct):
    writer: str
    number: int
    text: str


async def test_lines_of_two_writers_stay_whole_in_a_pipe_that_is_read_slowly(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    loop = asyncio.get_running_loop()
    writers = [LineWriter(loop, name, fifo) for name in "ab"]
    came = bytearray()

    def read() -> None:
        while piece := os.read(reading, 1000):
            came.extend(piece)

    reader = threading.Thread(target=read)
    for number in range(LINES):
        for writer in writers:
            writer.write(msgspec.json.encode(Line(writer.name, number, "x" * (number * 7 % 3000))))
        if number % 50 == 0:
            await asyncio.sleep(0.06)
            if not reader.is_alive():
                reader.start()
    await asyncio.gather(*(asyncio.to_thread(writer.close) for writer in writers))
    for writer in writers:
        os.close(writer._file)
    await asyncio.to_thread(reader.join, 20)
    os.close(reading)
    lines = [msgspec.json.decode(line, type=Line) for line in came.splitlines()]
    for writer in writers:
        assert [line.number for line in lines if line.writer == writer.name] == list(range(LINES))


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), min_size=1), st.integers(1, 40))
def test_pieces_are_whole_lines_and_no_longer_than_they_may_be(lines: list[bytes], most: int) -> None:
    chunk = b"".join(line + b"\n" for line in lines)
    pieces = list(_pieces(chunk, most))
    assert b"".join(pieces) == chunk
    for piece in pieces:
        assert piece.endswith(b"\n") or piece == b""
        assert len(piece) <= most or piece.count(b"\n") == 1


async def test_a_disk_that_is_full_costs_the_lines_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    writer = LineWriter(asyncio.get_running_loop(), "access log", Path("/dev/full"))
    with caplog.at_level(logging.INFO, "gateway"):
        for number in range(1, 4):
            writer.write(msgspec.json.encode(Line("a", number, "text")))
            while writer.dropped < number:  # noqa: ASYNC110 - a thread counts them
                await asyncio.sleep(0.01)
        writer.close()
    (told,) = caplog.records
    assert told.getMessage() == "the access log cannot be written: [Errno 28] No space left on device"
