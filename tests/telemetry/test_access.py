"""The access log: what it says, where it goes, what it never holds."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from gateway.handoff import Attempt, Handoff, Outcome
from gateway.telemetry.access import AccessLog, ToLines
from gateway.telemetry.conventions import ATTRIBUTES, MAX_VALUE_CHARACTERS, handoff_attributes
from gateway.telemetry.flood import Flood
from gateway.telemetry.lines import LineWriter
from gateway.telemetry.log_records import Line, log_record
from gateway.telemetry.suppressed import Suppressed, SuppressedKind
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, RawAgent, StartGateway, eventually, member
from tests.telemetry.collectors import COLLECTORS, attributes

PAGE = (Path(__file__).parents[2] / "docs" / "access-log.md").read_text()
ROW = re.compile(r"^\| `([\w.\[\]]+)` \|([^|]*)\|(?:[^|]*\|)?$", re.MULTILINE)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def full() -> Handoff:
    """A handoff with something in each of its fields."""
    kinds = {str: "text", int: 7, float: 1.5, bool: True}
    values = {each.name: kinds[each.type] for each in msgspec.structs.fields(Handoff) if each.type in kinds}
    values |= {
        "failed": (Attempt("executor-1", "unreachable", 1.0, 2.0, 0.5),),
        "trace_id": "0a" * 16,
        "lineage": ("a", "b"),
    }
    return Handoff(NOW, Outcome.FAILED, **values)


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def names(struct: type[msgspec.Struct]) -> set[str]:
    return {each.encode_name for each in msgspec.structs.fields(struct)}


def test_the_page_has_each_field_with_its_attribute_and_no_other() -> None:
    rows = dict(ROW.findall(section("Fields")))
    assert rows.keys() == names(Handoff) | {f"failed[].{name}" for name in names(Attempt)}
    own = {each.name: each.encode_name for each in msgspec.structs.fields(Handoff)}
    told = {name: text.strip(" `") for name, text in rows.items() if name in own.values() and text.strip()}
    assert told == {own[field]: attribute for field, attribute in ATTRIBUTES.items()}
    assert dict(ROW.findall(section("Floods"))).keys() == names(Suppressed) | names(SuppressedKind)


def test_an_attribute_says_what_its_field_says() -> None:
    told = dict(handoff_attributes(full()))
    assert set(ATTRIBUTES.values()) - told.keys() == set()
    assert told["flight.outcome"] == "failed"
    assert told["flight.failed"] == ("executor-1: unreachable",)
    assert told["http.response.status_code"] == 7
    assert told["http.request.method"] == "_OTHER"


def test_a_log_record_is_of_its_span_and_bounded() -> None:
    handoff = msgspec.structs.replace(full(), conversation="c" * 5000)
    record = log_record(Line(handoff, 0xAB << 8, 1))
    assert record.trace_id == b"\x0a" * 16
    assert record.span_id.hex() == "000000000000ab00"
    assert record.severity_text == "ERROR"
    assert len(str(attributes(record)["gen_ai.conversation.id"])) == MAX_VALUE_CHARACTERS


SECRET = "hunter2-hunter2"
SECRETS = {
    "authorization": f"Bearer {SECRET}",
    "proxy-authorization": f"Basic {SECRET}",
    "cookie": f"session={SECRET}",
    "flight-credential": f"{SECRET}.a.b",
    "flight-context": f'ref="https://store/{SECRET}"',
    "signature": "flight=:aHVudGVyMi1odW50ZXIy:",
    "signature-input": f'flight=("@method");nonce="{SECRET}"',
    "x-api-key": SECRET,
    "baggage": f"user={SECRET}",
    "tracestate": f"a={SECRET}",
    "referer": f"https://x/?{SECRET}",
    "user-agent": SECRET,
    "idempotency-key": SECRET,
}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_lines_and_spans_hold_no_secret_whatever_becomes_of_the_packet(
    raw_agent: Callable[..., RawAgent], start_gateway: StartGateway, protocol: str
) -> None:
    agent = raw_agent(answer_each)
    with COLLECTORS[protocol]() as collector:
        otlp = {"otlpEndpoint": collector.url, "protocol": protocol}
        gateway = start_gateway(
            [member(agent.port)],
            telemetry={"accessLog": "otlp", "logs": otlp, "tracing": {**otlp, "sampleRatio": 1}},
        )
        sent = 0
        with gateway.client() as client, gateway.client("mallory") as mallory:
            for each in (client, mallory):
                for name, value in SECRETS.items():
                    each.post(f"/run?token={SECRET}", headers={**CAPABILITY, name: value}, content=SECRET)
                    sent += 1
            client.post(f"/run?{SECRET}", headers={"flight-capability": "no such thing"}, content=SECRET)
        eventually(lambda: len(collector.records) >= sent + 1 and len(collector.handoffs()) >= sent + 1)
        assert {attributes(each)["flight.outcome"] for each in collector.records} == {"completed", "refused"}
        for each in (*collector.records, *collector.spans):
            assert SECRET.encode() not in each.SerializeToString()
            assert b"aHVudGVyMi1odW50ZXIy" not in each.SerializeToString()
        spans = {span.span_id: span for span in collector.handoffs()}
        for record in collector.records:
            assert record.trace_id == spans[record.span_id].trace_id
        assert SECRET not in gateway.log()


def test_a_flood_of_refusals_is_one_line_a_second(
    raw_agent: Callable[..., RawAgent], start_gateway: StartGateway
) -> None:
    agent = raw_agent(answer_each)
    gateway = start_gateway(
        [member(agent.port)],
        telemetry={"accessLog": "access.log", "maxRefusedLines": 5},
    )
    with gateway.client() as client, gateway.client("mallory") as mallory:
        for _ in range(100):
            assert mallory.post("/run", headers=CAPABILITY).status_code == 403
        assert client.post("/run", headers=CAPABILITY).status_code == 200

    def all_told() -> bool:
        lines = gateway.handoffs()
        suppressed = sum(line.get("suppressed", 0) for line in lines)
        return suppressed + sum(line.get("outcome") == "refused" for line in lines) == 100

    eventually(all_told)
    told = [line for line in gateway.handoffs() if "suppressed" in line]
    assert told
    for line in told:
        assert line["kinds"] == [
            {
                "outcome": "refused",
                "reason": "denied-by-policy",
                "from": "spiffe://mesh.local/ns/quarantine/sa/mallory",
                "count": line["suppressed"],
            }
        ]
    assert any(line.get("outcome") == "completed" for line in gateway.handoffs())
    count = sum(line["suppressed"] for line in told)
    assert f'phoenixflight_lines_suppressed_total{{outcome="refused"}} {count}.0' in gateway.admin("/metrics").text


async def test_a_log_that_is_closed_has_told_of_everything(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    loop = asyncio.get_running_loop()
    log = AccessLog(loop, ToLines(LineWriter(loop, "access log", path)), Flood(100, 1), lambda: NOW)
    for _ in range(10):
        refused = Handoff(NOW, Outcome.REFUSED, reason="denied-by-policy")
        log.write(refused, msgspec.json.encode(refused))
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("suppressed") for line in lines] == [None, 9]
    assert log.suppressed["refused"] == sum(log.suppressed.values()) == 9


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


async def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.lines.LOOK_INTERVAL_S", 0.0)
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    writer = LineWriter(asyncio.get_running_loop(), "access log", path)
    completed = msgspec.json.encode(Handoff(NOW, Outcome.COMPLETED))

    async def written(to: Path, lines: int) -> None:
        writer.write(completed)
        for _ in range(200):
            if lines_in(to) == lines:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{to} has not {lines} lines")

    await written(path, 1)
    os.rename(path, moved)
    await written(path, 1)
    assert lines_in(moved) == 1
    path.write_bytes(b"")  # copytruncate
    await written(path, 1)
    path.unlink()
    await written(path, 1)
    writer.close()
    assert writer.dropped == 0
