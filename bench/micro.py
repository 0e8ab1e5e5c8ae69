"""The parts of a decision, each alone: `python -m bench.micro` prints what one costs.

Times are the best of many repetitions: what the machine does besides only ever adds.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from timeit import repeat

from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console
from rich.table import Table

from bench.scrape import AGENTS, CAPABILITIES, busy_metrics, scraped
from gateway.decision import NO_EVIDENCE, Forward, Snapshot, decide, judge
from gateway.handoff import Handoff, Outcome
from gateway.identity import Principal, SpiffeId
from gateway.messages import RequestHead
from gateway.packet import FlightPacket, parse, sift
from gateway.packet.keys import Key, KeySet, SigningKey
from gateway.packet.signature import sign, verify
from gateway.policy import PolicySet
from gateway.policy.load import load_policies
from gateway.recorder.chain import START, Sealer
from gateway.recorder.compose import record_of
from gateway.recorder.line import Kind
from gateway.routing import Agent, Load, Ring, pick
from gateway.routing.simulate import agents
from gateway.verdict import Decided

_RULES = 2000
_MEMBERS = 5000
_POINTS = 160
_UNDER_WAY = 10
"""Packets at each member."""
_NOW = 1_800_000_000.0
_CALLER = Principal(SpiffeId("spiffe://mesh.local/ns/agents/sa/planner-7"))
_REPEATS = 30


@dataclass(frozen=True, slots=True)
class Part:
    """What one part costs, and what it may cost."""

    label: str
    value: float
    unit: str
    target: float

    @property
    def met(self) -> bool:
        """Whether it costs no more than it may."""
        return self.value <= self.target


def _us(work: Callable[[], object], number: int) -> float:
    return min(repeat(work, number=number, repeat=_REPEATS)) / number * 1e6


def _head(*more: tuple[bytes, bytes]) -> RequestHead:
    fields = [
        (b"content-type", b"application/json"),
        (b"flight-capability", b"code.execute"),
        (b"flight-id", b'"01890000-0000-7000-8000-000000000000"'),
        (b"flight-conversation", b'"c-17"'),
        (b"content-length", b"67"),
        *more,
    ]
    return RequestHead(b"POST", b"https", b"flight.internal", b"/run", fields)


def _packet(head: RequestHead) -> FlightPacket:
    return parse(head, sift(head.fields).flight, lambda: "none")


def _policies(rules: int, when: str = "") -> str:
    """One policy of `rules` rules, one of which is about the caller."""
    lines = [
        "apiVersion: phoenixflight.io/v1",
        "kind: TrustPolicy",
        "metadata: {name: many}",
        "spec:",
        '  capabilities: ["code.*"]',
        "  rules:",
    ]
    for number in range(rules):
        condition = f', when: "{when} && packet.hops < {number + 4}"' if when else ""
        caller = f"spiffe://mesh.local/ns/agents/sa/planner-{number}"
        lines.append(f'    - {{name: r{number}, effect: allow, from: ["{caller}"]{condition}}}')
    return "\n".join(lines)


def _snapshot(text: str) -> Snapshot:
    agents = tuple(Agent(f"executor-{n}", "127.0.0.1", 7100 + n, frozenset({"code.execute"})) for n in range(8))
    return Snapshot("bench", PolicySet(load_policies({"many.yaml": text})), agents)


def _decisions() -> list[Part]:
    head = _head()
    packet = _packet(head)
    plain, conditional = _snapshot(_policies(_RULES)), _snapshot(_policies(_RULES, "request.method == 'POST'"))

    def cached() -> None:
        route = judge(packet, head, _CALLER, NO_EVIDENCE, plain, _NOW).route
        route.ring.owner(packet.affinity)  # type: ignore[union-attr]

    def uncached(snapshot: Snapshot) -> Callable[[], object]:
        def work() -> None:
            snapshot.cases.clear()
            judge(packet, head, _CALLER, NO_EVIDENCE, snapshot, _NOW)

        return work

    return [
        Part("decision, cached", _us(cached, 2000), "µs", 4),
        Part("decision, not cached, 2,000 rules", _us(uncached(plain), 300), "µs", 25),
        Part("decision, not cached, 2,000 rules with CEL", _us(uncached(conditional), 300), "µs", 60),
    ]


def _signatures() -> list[Part]:
    secret = random.Random(1).randbytes(32)
    private = ec.derive_private_key(int.from_bytes(secret, "big") >> 8, ec.SECP256R1())
    parts = []
    signing: SigningKey
    for label, signing, verifying, target in (
        ("signature verified, ecdsa-p256-sha256", private, private.public_key(), 120.0),
        ("signature verified, hmac-sha256", secret, secret, 15.0),
    ):
        nonce = base64.b64encode(secret[:12]).decode()
        head = _head()
        signed = _head(*sign(head, signing, keyid="bench", created=int(_NOW), nonce=nonce))
        keys = KeySet({"bench": Key("bench", _CALLER.id, verifying)})
        work = _verification(signed, keys)
        parts.append(Part(label, _us(work, 200), "µs", target))
    return parts


def _verification(head: RequestHead, keys: KeySet) -> Callable[[], object]:
    return lambda: verify(head, keys, _CALLER, _NOW)


def _reload() -> list[Part]:
    # Another text each time: what compiled once is remembered.
    numbers = itertools.count()
    best = min(_seconds(lambda: _snapshot(_policies(_RULES, f"request.path != '/{next(numbers)}'"))) for _ in range(3))
    return [Part("reload of 2,000 rules with CEL", best, "s", 1)]


def _rings() -> list[Part]:
    ring, load = Ring(agents(_MEMBERS), _POINTS), Load()
    for agent in ring.agents:
        for _ in range(_UNDER_WAY):
            load.begin(agent.name)
    # So many that points and names do not stay in the processor's caches.
    keys = itertools.cycle([b"c-%d" % number for number in range(10_000)])

    def picked() -> None:
        name = pick(ring, next(keys), load).name
        load.begin(name)
        load.end(name)

    more = tuple(replace(agent, capabilities=frozenset({"code.execute"})) for agent in agents(_MEMBERS + 1))
    policies = PolicySet(load_policies({"many.yaml": _policies(_RULES)}))
    before = Snapshot("bench", policies, more[:-1], points=_POINTS)
    head = _head()
    judge(_packet(head), head, _CALLER, NO_EVIDENCE, before, _NOW)  # a route that is in use
    return [
        Part("pick by bounded load, 5,000 agents × 160 points", _us(picked, 10_000), "µs", 3),
        Part("one agent joins 5,000, a new snapshot", _us(lambda: before.with_agents(more), 1) / 1e3, "ms", 50),
    ]


def _scrapes() -> list[Part]:
    metrics = busy_metrics()
    took, waited = zip(*(asyncio.run(scraped(metrics)) for _ in range(10)), strict=True)
    what = f"{AGENTS} agents × {CAPABILITIES} capabilities"
    return [
        Part(f"a scrape, {what}", min(took), "ms", 150),
        Part("the longest that the event loop waits for it", min(waited), "ms", 20),
    ]


def handed_on() -> tuple[Handoff, Decided]:
    """A handoff that is over, and its decision, as the recorder gets them."""
    head = _head()
    snapshot = _snapshot(_policies(1).replace("planner-0", "planner-7"))
    verdict = decide(head, _CALLER, snapshot, _NOW, lambda _: 0)
    assert isinstance(verdict, Forward)
    decided = Decided(head, _CALLER, verdict, snapshot.revision, _NOW)
    handoff = Handoff(
        datetime.fromtimestamp(_NOW, UTC),
        Outcome.COMPLETED,
        flight_id=verdict.packet.id,
        conversation=verdict.packet.conversation,
        caller=_CALLER.id,
        capability="code.execute",
        agent=verdict.agent.name,
        policy="many",
        rule="r0",
        revision=snapshot.revision,
        listener="mesh",
        protocol="h2",
        method="POST",
        path="/run",
        status=200,
        attempts=1,
        duration_ms=12.345,
    )
    return handoff, decided


def _recorder() -> list[Part]:
    handoff, decided = handed_on()
    sealer = Sealer(START, os.urandom)

    def recorded() -> None:
        sealer.seal(Kind.HANDOFF, record_of(handoff, decided))

    return [Part("record, made and sealed", _us(recorded, 1000), "µs", 30)]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure() -> list[Part]:
    """Measure every part, on the core that this runs on."""
    return _decisions() + _rings() + _signatures() + _reload() + _recorder() + _scrapes()


def show(console: Console, parts: list[Part]) -> None:
    """Print them."""
    grid = Table(title="parts, each alone (best of many)", title_justify="left")
    for heading, justify in (("", "left"), ("ours", "right"), ("target", "left")):
        grid.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for part in parts:
        mark = "[green]✓[/]" if part.met else "[red]✗[/]"
        grid.add_row(part.label, f"{part.value:.3g} {part.unit}", f"{mark} ≤ {part.target:g} {part.unit}")
    console.print(grid)


if __name__ == "__main__":
    show(Console(), measure())
