"""``/conversations`` and ``/tasks``: the handoffs that belong together, as a tree of parents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, Literal

import http_sf
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.forest import Node, forest, when
from gateway.admin.operators import refused
from gateway.admin.stream import json, limit_of
from gateway.admin.under_way import under_way
from gateway.documents import DocumentError
from gateway.handoff import Handoff, Outcome
from gateway.policy.facts import DEFAULT_HOPS
from gateway.recorder import Reader, Record
from gateway.recorder.compose import record_of
from gateway.recorder.record import record_in
from gateway.telemetry.recent import Recent
from gateway.verdict import Decided

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

MAX_SHOWN: Final = 5_000
"""Handoffs of one conversation or task: the first ones; it is told whether there are more."""

MAX_READINGS: Final = 2
"""Of the flight recorder's files at a time: they may be long, and threads are for others, too."""
MAX_ASKED: Final = 16
"""Conversations and tasks asked for at a time; who asks for more is told to come again."""

Kind = Literal["conversation", "task"]
Open = tuple[Handoff, Decided]
"""What is under way, and the decision that it began with."""


class Conversation(msgspec.Struct):
    """One of the list; empty where nothing names it."""

    id: str
    handoffs: int = 0
    """Ended ones, in memory."""
    first: datetime | None = None
    last: datetime | None = None
    """When the first and the last of them began, open ones among them."""
    capabilities: list[str] = []
    refused: int = 0
    open: int = 0
    """Under way now."""


class Conversations(msgspec.Struct, frozen=True):
    """The answer of ``/conversations``."""

    conversations: list[Conversation]
    """The one that was active last first."""


class Forest(msgspec.Struct, frozen=True):
    """The answer of ``/conversations/{id}`` and ``/tasks/{id}``."""

    id: str
    kind: Kind
    source: Literal["recorder", "memory"]
    more: bool
    """There are more handoffs than are shown."""
    handoffs: list[Node]


def listed(in_memory: Iterable[Handoff]) -> list[Conversation]:
    """The conversations of handoffs that ended or are under way, the last active one first."""
    found: dict[str, Conversation] = {}
    for handoff in in_memory:
        if not handoff.conversation:
            continue
        is_open = handoff.outcome is Outcome.OPEN
        known = found.setdefault(handoff.conversation, Conversation(handoff.conversation))
        known.handoffs += not is_open
        known.open += is_open
        known.refused += handoff.outcome is Outcome.REFUSED
        known.first = min(known.first or handoff.time, handoff.time)
        known.last = max(known.last or handoff.time, handoff.time)
        if handoff.capability not in known.capabilities:
            known.capabilities.append(handoff.capability)
    return sorted(found.values(), key=lambda known: (known.last, known.id), reverse=True)


def node_of(record: Record) -> Node:
    """A handoff with what it was allowed and what it spent, and the agents that it might have gone to."""
    timeout_ms = int(record.timeout) if record.timeout.isdecimal() else 0
    node: Node = msgspec.to_builtins(record)
    del node["decided"]
    allowed = amounts(record.budget)
    node["allowed"] = {
        "policy": record.policy,
        "rule": record.rule,
        "budget": allowed,
        "hops": allowed.get("hops", DEFAULT_HOPS),
        "timeout_ms": timeout_ms,
    }
    if record.usage:
        node["spent"] = amounts(record.usage)
    if record.reserved:
        node["reserved"] = amounts(record.reserved)
    return node


def amounts(text: str) -> dict[str, int]:
    """The whole numbers of a dictionary (RFC 9651 section 3.2), as agents write budgets and usage; else none."""
    try:
        members: Any = http_sf.parse(text.encode("latin-1", "replace"), tltype="dictionary") if text else {}
    except ValueError:
        return {}
    return {str(name): item[0] for name, item in members.items() if type(item[0]) is int}


def conversation_routes(gateway: Gateway) -> list[Route]:
    """The endpoints of `gateway`."""
    readings = asyncio.Semaphore(MAX_READINGS)
    asked: set[object] = set()

    def open_now() -> list[Open]:
        return list(under_way(gateway.plane)) if gateway.plane is not None else []

    async def conversations(request: Request) -> Response:
        try:
            limit = limit_of(request)
        except ValueError as error:
            return refused(400, str(error))
        open_ = [handoff for handoff, _ in open_now()]
        found = await asyncio.to_thread(lambda: listed(chain(gateway.recent.handoffs(), open_)))
        return json(Conversations(found[:limit]))

    async def conversation(request: Request) -> Response:
        return await one("conversation", request.path_params["id"])

    async def task(request: Request) -> Response:
        return await one("task", request.path_params["id"])

    async def one(kind: Kind, wanted: str) -> Response:
        if gateway.plane is not None:
            gateway.plane.records.settle()
        open_ = [each for each in open_now() if getattr(each[0], kind) == wanted]
        if len(asked) >= MAX_ASKED:
            return refused(503, f"{MAX_ASKED} conversations are being looked for already", retry_after_s=1)
        asking = object()
        asked.add(asking)
        try:
            async with readings:
                found = await asyncio.to_thread(whole, kind, wanted, gateway.recorded, gateway.recent, open_)
        except (DocumentError, OSError) as error:
            return refused(503, f"the flight recorder cannot be read: {error}")
        finally:
            asked.discard(asking)
        if not found.handoffs:
            return refused(404, f"nothing is known of this {kind}")
        return json(found)

    return [
        Route("/conversations", conversations),
        Route("/conversations/{id:path}", conversation),
        Route("/tasks/{id:path}", task),
    ]


def whole(kind: Kind, wanted: str, reader: Reader | None, recent: Recent, open_: Iterable[Open]) -> Forest:
    """Everything that is known of a conversation or a task; for a thread.

    Args:
        kind: which of the two.
        wanted: its id.
        reader: of the flight recorder, where there is one.
        recent: handoffs that ended lately.
        open_: its handoffs that are under way, with their decisions.

    Raises:
        DocumentError: the recorder's files are not as it wrote them.
        OSError: they cannot be read.

    """
    found: dict[tuple[str, str], Node] = {}
    if reader is not None and wanted:
        records = reader.records(task=wanted) if kind == "task" else reader.records(conversation=wanted)
        found = {_key(node): node for node in map(node_of, islice(records, MAX_SHOWN + 1))}
    source: Literal["recorder", "memory"] = "recorder" if found else "memory"
    ended = (each for each in recent.records() if getattr(each, kind) == wanted)
    for node in map(node_of, chain(ended, (record_in(record_of(*each)) for each in open_))):
        # What ended a moment ago may not have been written yet; of what is open, memory knows more.
        known = found.get(_key(node))
        if known is None or known["outcome"] == Outcome.OPEN.value:
            found[_key(node)] = node
    nodes = sorted(found.values(), key=when)
    return Forest(wanted, kind, source, len(nodes) > MAX_SHOWN, forest(nodes[:MAX_SHOWN]))


def _key(node: Node) -> tuple[str, str]:
    return str(node["time"]), str(node.get("flight_id", ""))
