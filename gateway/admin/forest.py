"""Handoffs as trees of parents.  Pure.

Senders say whose child a packet is, so that what they say may be wrong: of parents that are not there, of two packets
with one id, of circles and of chains without an end, each still gives a forest that has every handoff once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

MAX_DEPTH: Final = 100
"""Deeper ones stand beside their parents."""

Node = dict[str, Any]
"""A handoff's fields as JSON values, and ``children``."""


def forest(handoffs: Iterable[Node]) -> list[Node]:
    """The roots, each with its ``children``, in the order of time.

    A child is a handoff whose ``parent`` is the ``flight_id`` of one that began before it; of several with that id,
    of the first.

    Args:
        handoffs: with ``time`` as text of one form; they are changed.

    """
    roots: list[Node] = []
    placed: dict[str, tuple[Node, int]] = {}
    """By the id of the first handoff that has it: under which node its children go, and how deep that is."""
    for node in sorted(handoffs, key=when):
        node["children"] = []
        parent, depth = placed.get(node.get("parent", ""), (None, 0))
        (roots if parent is None else parent["children"]).append(node)
        flight_id = node.get("flight_id", "")
        if flight_id and flight_id not in placed:
            placed[flight_id] = (node, depth + 1) if parent is None or depth < MAX_DEPTH else (parent, depth)
    return roots


def when(node: Node) -> str:
    """The time at which a handoff began, as text whose order is that of time: without a fraction it sorts first."""
    return str(node["time"]).removesuffix("Z")
