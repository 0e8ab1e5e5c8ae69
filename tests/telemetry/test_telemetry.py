from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.handoff import Handoff
from gateway.telemetry import telemetry
from gateway.telemetry.access import AccessLog, ToLines
from gateway.telemetry.flood import Flood
from gateway.telemetry.lines import LineWriter
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recent import Recent
from gateway.telemetry.tracing import Tracing
from gateway.verdict import Decided
from tests.recorder.making import decided, ended


async def test_a_handoff_whose_record_cannot_be_made_is_logged_and_told_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(handoff: Handoff, decided: Decided, line: bytes) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(telemetry, "record_of", fails)
    told: list[bytes] = []
    metrics, recent, loop = Metrics(), Recent(), asyncio.get_running_loop()
    log = AccessLog(loop, ToLines(LineWriter(loop, "access log", tmp_path / "access.log")), Flood(10, 10))
    sinks = (lambda handoff, decided, record: told.append(record),)
    everywhere = telemetry.Telemetry(metrics, Tracing(), recent, log, sinks)
    decision = decided()
    handoff = ended(decision)
    everywhere.handoff(handoff, decision, everywhere.begin_trace(decision), 0.001, 0.002)
    log.close()
    assert json.loads((tmp_path / "access.log").read_text())["flight_id"] == handoff.flight_id
    assert told == [b""]
    assert recent.records() == []
    assert metrics.defects == 1
