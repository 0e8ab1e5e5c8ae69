"""``phoenixflight policy replay``: a change, tried on what was recorded."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli import app
from gateway.decision import NO_EVIDENCE, Evidence, Snapshot, decide
from gateway.handoff import Handoff, Outcome
from gateway.identity import Principal, SpiffeId
from gateway.membership.file import load_agents
from gateway.messages import RequestHead
from gateway.packet import fields as names
from gateway.policy import PolicySet
from gateway.policy.load import load_policies
from gateway.recorder import Record
from gateway.recorder.line import Kind
from gateway.recorder.segments import segments_in
from gateway.verdict import Decided
from tests.conftest import member
from tests.recorder.making import chain_in, ended, record_of

run = CliRunner().invoke

HANDOFFS = 10_000
START = 1_767_268_800.0
PLANNER, CODER, SCOUT = (SpiffeId(f"spiffe://mesh.local/ns/agents/sa/{name}") for name in ("planner", "coder", "scout"))

BEFORE = f"""\
apiVersion: phoenixflight.io/v1
kind: TrustPolicy
metadata: {{name: mesh}}
spec:
  capabilities: ["*"]
  rules:
    - {{name: planners, effect: allow, from: [{PLANNER}], when: "packet.hops >= 2"}}
    - {{name: coders, effect: allow, from: [{CODER}], require: {{signature: true}}}}
    - {{name: scouts, effect: allow, from: [{SCOUT}], when: "!request.path.startsWith('/admin')"}}
"""
AFTER = (
    BEFORE.replace("packet.hops >= 2", "packet.hops >= 4")  # fewer of the planner's
    .replace(", require: {signature: true}", "")  # more of the coder's
    .replace('when: "!', 'agentWhen: "agent.name != \'executor-2\'", when: "!')  # the scout's go elsewhere
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sets of policies, and the agents."""
    for name, text in (("before", BEFORE), ("after", AFTER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mesh.yaml").write_text(text)
    agents = {
        "apiVersion": "phoenixflight.io/v1",
        "kind": "AgentList",
        "metadata": {"name": "test"},
        "spec": {"agents": [member(7101), member(7102, "executor-2")]},
    }
    (tmp_path / "agents.yaml").write_text(yaml.safe_dump(agents))
    return tmp_path


def in_force(folder: Path) -> Snapshot:
    agents = load_agents((folder / "agents.yaml").read_text(), "agents.yaml")
    return Snapshot("r1", PolicySet(load_policies({"mesh.yaml": BEFORE})), agents)


def generate(folder: Path, count: int) -> tuple[list[Record], dict[str, str]]:
    """Handoffs as they are recorded under `BEFORE`, and the flip that `AFTER` must cause, by id."""
    rng = random.Random(2026)
    force = in_force(folder)
    made: list[Record] = []
    flips: dict[str, str] = {}
    for at in range(count):
        caller, hops, signed = rng.choice((PLANNER, CODER, SCOUT)), rng.randrange(6), rng.random() < 0.5
        path = rng.choice(("/run", "/run?token=1", "/admin/run"))
        head = RequestHead(
            rng.choice((b"POST", b"GET")),
            b"https",
            b"gateway",
            path.encode(),
            [(names.CAPABILITY, b"code.execute"), (names.BUDGET, b"hops=%d" % hops), (b"authorization", b"Bearer x")],
        )
        if rng.random() < 0.5:
            head.fields.append((names.CONVERSATION, b'"c-%d"' % rng.randrange(500)))
        evidence = Evidence(caller, frozenset({b"@method"})) if signed else NO_EVIDENCE
        now = START + at
        verdict = decide(head, Principal(caller), force, now, rng.getrandbits, assume=evidence)
        decision = Decided(head, Principal(caller), verdict, "r1", now)
        kept = record_of(ended(decision), decision)
        made.append(kept)
        if caller == PLANNER and hops in (2, 3):
            flips[kept.flight_id] = "allow -> refuse"
        elif caller == CODER and not signed:
            flips[kept.flight_id] = "refuse -> allow"
        elif caller == SCOUT and kept.agent == "executor-2":
            flips[kept.flight_id] = "other agent"
    return made, flips


def write(folder: Path, records: list[bytes]) -> Path:
    shutil.rmtree(folder / "recorder", ignore_errors=True)
    chain = chain_in(folder / "recorder" / "chain-0")
    chain.append([(Kind.HANDOFF, each) for each in records])
    chain.close()
    return segments_in(chain.folder)[0]


def encoded(records: list[Record]) -> list[bytes]:
    return [msgspec.json.encode(each) for each in records]


def replay(folder: Path, candidate: str) -> tuple[int, list[str]]:
    options = {"--from": "recorder", "--with": candidate, "--members": "agents.yaml"}
    arguments = [word for name, file in options.items() for word in (name, str(folder / file))]
    result = run(app, ["policy", "replay", *arguments])
    return result.exit_code, result.output.splitlines()


def test_ten_thousand_handoffs_tell_each_flip_that_a_change_causes_and_no_other(folder: Path) -> None:
    made, expected = generate(folder, HANDOFFS)
    write(folder, encoded(made))
    code, lines = replay(folder, "after")
    assert code == 1
    told = {line.split(": ")[1].split(" ")[0]: line.split(": ")[0] for line in lines[: len(expected)]}
    assert told == expected
    count = Counter(expected.values())
    assert min(count.values()) > 500
    assert lines[len(expected) :] == [
        f"{CODER}: {count['refuse -> allow']} refuse -> allow",
        f"{PLANNER}: {count['allow -> refuse']} allow -> refuse",
        f"{SCOUT}: {count['other agent']} other agent",
        f"{HANDOFFS} packets, {len(expected)} flips",
    ]


def test_the_policies_that_were_in_force_flip_nothing(folder: Path) -> None:
    made, _ = generate(folder, 500)
    write(folder, encoded(made))
    assert replay(folder, "before") == (0, ["500 packets, 0 flips"])


def test_a_flip_tells_the_packet_its_sender_and_both_rules(folder: Path) -> None:
    made, expected = generate(folder, 100)
    for kind, told in (
        ("allow -> refuse", "allow by mesh/planners, to {0.agent} -> refuse (no-policy-allows)"),
        ("refuse -> allow", "refuse (signature-invalid, by mesh/coders) -> allow by mesh/coders, to executor-"),
        ("other agent", "allow by mesh/scouts, to executor-2 -> allow by mesh/scouts, to executor-1"),
    ):
        one = next(each for each in made if expected.get(each.flight_id) == kind)
        write(folder, encoded([one]))
        code, lines = replay(folder, "after")
        assert code == 1
        start = f"{kind}: {one.flight_id} {one.caller} code.execute: {told.format(one)}"
        assert lines[0].startswith(start), lines[0]


def test_what_was_refused_before_policy_was_asked_is_counted_apart(folder: Path) -> None:
    head = RequestHead(b"GET", b"https", b"g", b"/", [])
    malformed = decide(head, Principal(PLANNER), in_force(folder), START, lambda _: 0)
    decision = Decided(head, Principal(PLANNER), malformed, "r1", START)
    handoff = Handoff(datetime.fromtimestamp(START, UTC), Outcome.REFUSED, reason="malformed-packet")
    write(folder, encoded([record_of(handoff, decision)]))
    assert replay(folder, "after") == (0, ["1 packets (1 were refused before policy was asked), 0 flips"])


OTHER = b'{"time":"2026-01-01T00:00:00Z","outcome":"completed","decided":{"allow":true},"from":"me"}'


@pytest.mark.parametrize("broken", [b"{}", b'{"time": 1}', OTHER])
def test_a_bad_record_exits_2_with_its_line(folder: Path, broken: bytes) -> None:
    made, _ = generate(folder, 3)
    path = write(folder, [*encoded(made), broken])
    code, lines = replay(folder, "before")
    assert code == 2
    assert lines[-1].startswith(f"{path}:5:1: no record: " if broken is not OTHER else f"{folder / 'recorder'}:1:1: ")


def test_files_that_are_missing_or_not_valid_exit_2(folder: Path) -> None:
    assert replay(folder, "before") == (2, [f"{folder / 'recorder'}:1:1: No such file or directory"])
    write(folder, [])
    assert replay(folder, "none") == (2, [f"{folder / 'none'}:1:1: No such file or directory"])
    (folder / "after" / "mesh.yaml").write_text(AFTER.replace("effect: allow", "effect: maybe"))
    code, lines = replay(folder, "after")
    assert code == 2
    assert "expected 'allow', 'ask' or 'deny'" in lines[0]
