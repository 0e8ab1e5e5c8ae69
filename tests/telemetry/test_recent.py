from __future__ import annotations

from datetime import timedelta

import msgspec

from gateway.handoff import Outcome
from gateway.packet import fields as names
from gateway.recorder.compose import line_of, record_of
from gateway.recording import record
from gateway.telemetry.recent import MAX_RECENT, Recent
from tests.recorder.making import decided, ended


def test_a_packet_is_found_as_it_was_decided_and_the_latest_of_two_with_one_id() -> None:
    recent = Recent()
    for flight_id in ("one", "two", "one", 'quoted "one"'):
        decision = decided((names.ID, names.sf_string(flight_id)), (names.TASK, b'"one"'))
        later = (
            ended(decision) if flight_id != "one" else msgspec.structs.replace(ended(decision), outcome=Outcome.FAILED)
        )
        recent.add(record_of(later, decision))
        if flight_id == "one":
            latest = decision
    assert recent.find("one") == record(latest)
    found = recent.find('quoted "one"')
    assert found is not None
    assert found.flight_id == 'quoted "one"'
    assert recent.find("on") is None
    assert recent.find("") is None


def test_only_so_many_are_kept_and_handoffs_are_those_that_the_access_log_has() -> None:
    recent = Recent()
    decision = decided()
    handoff = ended(decision, path="/c")
    lines = []
    for number in range(MAX_RECENT + 1):
        later = msgspec.structs.replace(handoff, time=handoff.time + timedelta(seconds=number))
        lines.append(line_of(later))
        recent.add(record_of(later, decision, lines[-1]))
    kept = recent.records()
    assert len(kept) == MAX_RECENT
    assert [kept[0].time, kept[-1].time] == [
        handoff.time + timedelta(seconds=1),
        handoff.time + timedelta(seconds=MAX_RECENT),
    ]
    newest = next(recent.handoffs())
    assert newest.path == "/run", "a record has all of what the access log cuts"
    assert msgspec.json.encode(msgspec.structs.replace(newest, path="/c")) == lines[-1]
