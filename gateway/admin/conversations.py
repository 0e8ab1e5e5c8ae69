"""``/conversations`` and ``/tasks``: the handoffs that belong together, as a tree of parents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import http_sf
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.forest import Node, forest, when
from gateway.admin.live import Ended
from gateway.admin.operators import refused
from gateway.admin.stream import json, limit_of
from gateway.admin.under_way import under_way
from gateway.handoff import Outcome
from gateway.packet import fields as names
from gateway.policy.facts import DEFAULT_HOPS

if TYPE_CHECKING:
    from gateway.control.gateway import Gateway

MAX_SHOWN: Final = 5_000
"""Handoffs of one conversation or task: the first ones; it is told whether there are more."""
OPEN: Final = "open"
"""The outcome of a handoff that has none yet."""
_ALLOWED: Final = ("budget", "hops", "timeout_ms")

Kind = Literal["conversation", "task"]


class Records(Protocol):
    """A flight recorder's reader: blocks, and is asked in a thread."""

    def records(
        self, *, conversation: str | None = None, task: str | None = None, flight_id: str | None = None
    ) -> Iterator[msgspec.Struct]:
        """What is recorded of a conversation, a task or a packet, with the fields of `gateway.handoff.Handoff`."""
        ...


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


def listed(ended: Iterable[Ended], open_: Iterable[Ended]) -> list[Conversation]:
    """The conversations of handoffs that ended and of those that have not, the last active one first."""
    found: dict[str, Conversation] = {}
    for each, is_open in (*((each, False) for each in ended), *((each, True) for each in open_)):
        handoff = each.handoff
        if not handoff.conversation:
            continue
        known = found.setdefault(handoff.conversation, Conversation(handoff.conversation))
        known.handoffs += not is_open
        known.open += is_open
        known.refused += handoff.outcome is Outcome.REFUSED
        known.first = min(known.first or handoff.time, handoff.time)
        known.last = max(known.last or handoff.time, handoff.time)
        if handoff.capability not in known.capabilities:
            known.capabilities.append(handoff.capability)
    return sorted(found.values(), key=lambda known: (known.last, known.id), reverse=True)


def node_of(ended: Ended, *, is_open: bool) -> Node:
    """A handoff with what it was allowed."""
    node: Node = msgspec.to_builtins(ended.handoff)
    if is_open:
        node["outcome"] = OPEN
    budget = _budget(ended)
    node["allowed"] = {
        "policy": ended.handoff.policy,
        "rule": ended.handoff.rule,
        "budget": budget,
        "hops": budget.get("hops", DEFAULT_HOPS),
        "timeout_ms": ended.packet.timeout_ms if ended.packet is not None else 0,
    }
    return node


def recorded_node(record: msgspec.Struct) -> Node:
    """The same from the recorder, which knows what was spent, too."""
    node: Node = msgspec.to_builtins(record)
    allowed = {name: node.pop(name) for name in _ALLOWED if name in node}
    node["allowed"] = {"policy": node.get("policy", ""), "rule": node.get("rule", ""), **allowed}
    if node.get("usage"):
        node["spent"] = node.pop("usage")
    return node


def _budget(ended: Ended) -> dict[str, int]:
    raw = b", ".join(value for name, value in ended.head.fields if name == names.BUDGET)
    if not raw or ended.packet is None:
        return {}
    # Its form was checked when the packet was parsed.
    members: Any = http_sf.parse(raw, tltype="dictionary")
    return {str(name): item[0] for name, item in members.items() if type(item[0]) is int}


def conversation_routes(gateway: Gateway) -> list[Route]:
    """The endpoints of `gateway`."""

    def open_now() -> list[Ended]:
        return list(under_way(gateway.plane)) if gateway.plane is not None else []

    async def conversations(request: Request) -> Response:
        try:
            limit = limit_of(request)
        except ValueError as error:
            return refused(400, str(error))
        open_ = open_now()
        found = await asyncio.to_thread(listed, gateway.live.latest(), open_)
        return json(Conversations(found[:limit]))

    async def conversation(request: Request) -> Response:
        return await one("conversation", request.path_params["id"])

    async def task(request: Request) -> Response:
        return await one("task", request.path_params["id"])

    async def one(kind: Kind, wanted: str) -> Response:
        if gateway.plane is not None:
            gateway.plane.records.settle()
        open_ = [each for each in open_now() if getattr(each.handoff, kind) == wanted]
        ended = [each for each in gateway.live.latest() if getattr(each.handoff, kind) == wanted]
        try:
            found = await asyncio.to_thread(_whole, kind, wanted, gateway.recorded, ended, open_)
        except OSError as error:
            return refused(503, f"the flight recorder cannot be read: {error}")
        if not found.handoffs:
            return refused(404, f"nothing is known of this {kind}")
        return json(found)

    return [
        Route("/conversations", conversations),
        Route("/conversations/{id:path}", conversation),
        Route("/tasks/{id:path}", task),
    ]


def _whole(kind: Kind, wanted: str, reader: Records | None, ended: list[Ended], open_: list[Ended]) -> Forest:
    """Everything that is known; for a thread.

    Raises:
        OSError: the recorder's files cannot be read.

    """
    nodes: list[Node] = []
    if reader is not None:
        records = reader.records(task=wanted) if kind == "task" else reader.records(conversation=wanted)
        nodes = [recorded_node(record) for record in islice(records, MAX_SHOWN + 1)]
    source: Literal["recorder", "memory"] = "recorder" if nodes else "memory"
    known = {(node["time"], node.get("flight_id")) for node in nodes}
    # What ended a moment ago may not have been written yet.
    for each, is_open in (*((each, False) for each in ended), *((each, True) for each in open_)):
        node = node_of(each, is_open=is_open)
        if (node["time"], node.get("flight_id")) not in known:
            nodes.append(node)
    nodes.sort(key=when)
    return Forest(wanted, kind, source, len(nodes) > MAX_SHOWN, forest(nodes[:MAX_SHOWN]))
