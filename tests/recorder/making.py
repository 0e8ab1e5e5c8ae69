"""Records, and chains of them, for tests."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.decision import Evidence, Snapshot, decide
from gateway.handoff import Handoff, Outcome
from gateway.identity import Principal, SpiffeId
from gateway.messages import RequestHead
from gateway.packet import fields as names
from gateway.packet.keys import Key
from gateway.recorder import Record, RecorderSpec
from gateway.recorder.compose import record_of as text_of
from gateway.recorder.heads import Signer, load_signer, load_verifier
from gateway.recorder.line import Kind
from gateway.recorder.segments import ChainFolder
from gateway.verdict import Decided
from tests.policy.worlds import ALLOW, NOON, PLANNER, policy, snapshot

_numbers = itertools.count(1)
FORCE = snapshot(policy("p", ["*"], ALLOW))


def key_pair(private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> tuple[Signer, Key]:
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return load_signer(pem), load_verifier(public)


SIGNER, KEY = key_pair(Ed25519PrivateKey.from_private_bytes(bytes(32)))


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def decided(
    *more: tuple[bytes, bytes],
    force: Snapshot = FORCE,
    caller: SpiffeId = PLANNER,
    now: float = NOON,
    path: bytes = b"/run",
    evidence: Evidence | None = None,
) -> Decided:
    """A decision on a packet with these fields, beside its capability."""
    head = RequestHead(b"POST", b"https", b"gateway", path, [(names.CAPABILITY, b"code.execute"), *more])
    principal = Principal(caller)
    number = next(_numbers)
    verdict = decide(head, principal, force, now, lambda _: number, assume=evidence)
    return Decided(head, principal, verdict, force.revision, now)


def record_of(handoff: Handoff, decision: Decided) -> Record:
    """The record of a handoff, as it is read again."""
    return msgspec.json.decode(text_of(handoff, decision), type=Record)


def ended(decision: Decided, **more: Any) -> Handoff:
    """The handoff that `decision` began, gone as it was decided unless `more` says otherwise."""
    kept = msgspec.structs.asdict(record_of(Handoff(datetime.now(UTC), Outcome.COMPLETED), decision).decided)
    packet = decision.verdict.packet
    assert packet is not None
    allow = kept["allow"]
    values = {
        "time": datetime.fromtimestamp(decision.now, UTC),
        "outcome": Outcome.COMPLETED if allow else Outcome.REFUSED,
        "flight_id": packet.id,
        "conversation": packet.conversation,
        "task": packet.task,
        "parent": packet.parent,
        "caller": decision.principal.id if decision.principal is not None else "",
        "signer": decision.verdict.evidence.signer or "",
        "capability": packet.capabilities.label,
        "method": decision.head.method.decode(),
        "authority": decision.head.authority.decode(),
        "path": decision.head.path.partition(b"?")[0].decode("latin-1"),
        **{name: kept[name] for name in ("agent", "reason", "policy", "rule", "revision")},
    }
    return Handoff(**{**values, **more})


def made(*more: tuple[bytes, bytes], **values: Any) -> Record:
    """A record of a packet with these fields."""
    decision = decided(*more)
    return record_of(ended(decision, **values), decision)


def conversation(name: str) -> tuple[bytes, bytes]:
    return names.CONVERSATION, names.sf_string(name)


def chain_in(folder: Path, clock: Clock | None = None, signer: Signer | None = None, **spec: Any) -> ChainFolder:
    """A chain to add to."""
    rng = random.Random(str(folder))
    settings = RecorderSpec(**{"folder": folder.parent, "fsync": "never", **spec})
    return ChainFolder(folder, settings, signer, clock=clock or Clock(), entropy=rng.randbytes)


def add(chain: ChainFolder, *records: Record) -> None:
    """Have the chain keep them, as a gateway does."""
    for each in records:
        if chain.full:
            chain.retain()
        chain.append([(Kind.HANDOFF, msgspec.json.encode(each))])
