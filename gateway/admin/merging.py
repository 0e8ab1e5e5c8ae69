"""What several workers answer, as one gateway's answer.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from gateway.admin.approvals import Approvals
from gateway.admin.conversations import Conversation, Conversations, Forest
from gateway.admin.events import State
from gateway.admin.forest import Node, forest, when
from gateway.admin.members import Circle, Member, Members, OnRing
from gateway.admin.policies import Policies, PolicyHits, RuleHits
from gateway.admin.stream import Handoffs
from gateway.admin.tasks import MAX_NAMES, Place, Tasks
from gateway.membership.overrides import is_as_far
from gateway.routing import AgentState

Named = TypeVar("Named", Member, OnRing, PolicyHits, RuleHits)


def states(told: Sequence[State]) -> State:
    """At least one: what adds up is added, of the others the worst counts."""
    revisions = {each.revision for each in told}
    return State(
        max(each.time for each in told),
        all(each.ready for each in told),
        revisions.pop() if len(revisions) == 1 else "",
        sum(each.in_flight for each in told),
        sum(each.connections for each in told),
        round(sum(each.handoffs_per_s for each in told), 1),
        round(sum(each.refused_per_s for each in told), 1),
        round(sum(each.failed_per_s for each in told), 1),
        max(each.loop_lag_ms for each in told),
        max(each.overload_level for each in told),
        sum(each.approvals for each in told),
        sum(each.dropped for each in told),
    )


def handoffs(told: Sequence[Handoffs], limit: int) -> Handoffs:
    """The newest `limit` of all."""
    found = [handoff for each in told for handoff in each.handoffs]
    found.sort(key=lambda handoff: handoff.time, reverse=True)
    return Handoffs(found[:limit])


def conversations(told: Sequence[Conversations], limit: int) -> Conversations:
    """A conversation's handoffs may have come to several workers."""
    found: dict[str, Conversation] = {}
    for each in (conversation for one in told for conversation in one.conversations):
        known = found.setdefault(each.id, each)
        if known is each:
            continue
        known.handoffs += each.handoffs
        known.refused += each.refused
        known.open += each.open
        known.first = min((at for at in (known.first, each.first) if at is not None), default=None)
        known.last = max((at for at in (known.last, each.last) if at is not None), default=None)
        known.capabilities += [name for name in each.capabilities if name not in known.capabilities]
    order = sorted(found.values(), key=lambda known: (known.last, known.id), reverse=True)
    return Conversations(order[:limit])


def forests(told: Sequence[Forest], most: int) -> Forest:
    """At least one: each handoff once, whoever told it; the first `most` of them."""
    found: dict[tuple[str, str], Node] = {}
    for node in (node for each in told for node in _nodes(each.handoffs)):
        found.setdefault((str(node["time"]), str(node.get("flight_id", ""))), node)
    nodes = sorted(found.values(), key=when)
    more = len(nodes) > most or any(each.more for each in told)
    source = next((each.source for each in told if each.source == "recorder"), told[0].source)
    return Forest(told[0].id, told[0].kind, source, more, forest(nodes[:most]))


def _nodes(roots: Sequence[Node]) -> Iterator[Node]:
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        waiting += node["children"]
        yield node


def approvals(told: Sequence[Approvals]) -> Approvals:
    """Each packet waits in one worker."""
    return Approvals(sorted((one for each in told for one in each.approvals), key=lambda waiting: waiting.time))


def members(told: Sequence[Members]) -> Members:
    """Each worker observes agents for itself: of a member it is told how the one sees it that gives it the least."""
    return Members([member(each) for each in _by_name([one.members for one in told])])


def member(told: Sequence[Member]) -> Member:
    """One member, as several workers have it."""
    worst = told[0]
    for each in told[1:]:
        further = is_as_far(AgentState(each.state), AgentState(worst.state)) and each.state != worst.state
        if further or (each.state == worst.state and each.reliability < worst.reliability):
            worst = each
    share = sum(each.share for each in told) / len(told)
    return replace(worst, in_flight=sum(each.in_flight for each in told), share=round(share, 6))


def circles(told: Sequence[Circle]) -> Circle:
    """At least one: the ring of the first of them, with what is under way at all."""
    rings = _by_name([one.members for one in told])
    shown = [replace(each[0], in_flight=sum(one.in_flight for one in each)) for each in rings]
    return Circle(told[0].capability, shown)


def policies(told: Sequence[Policies]) -> Policies:
    """Hits add up."""
    return Policies(
        [
            replace(each[0], rules=[_rule(rules) for rules in _by_name([one.rules for one in each])])
            for each in _by_name([one.policies for one in told])
        ],
        sum(one.default_refusals for one in told),
    )


def _rule(told: Sequence[RuleHits]) -> RuleHits:
    return replace(
        told[0],
        hits=sum(each.hits for each in told),
        shadow_hits=sum(each.shadow_hits for each in told),
        last_hit=max((each.last_hit for each in told if each.last_hit is not None), default=None),
    )


def tasks(told: Sequence[Tasks]) -> Tasks:
    """At least one."""
    found: dict[tuple[str, ...], Place] = {}
    for place in (place for each in told for place in each.places):
        known = found.get(tuple(place.stack), Place(0, [], place.stack))
        names = (known.names + place.names)[:MAX_NAMES]
        found[tuple(place.stack)] = Place(known.count + place.count, names, place.stack)
    places = sorted(found.values(), key=lambda place: (-place.count, place.stack))
    return Tasks(max(each.loop_lag_ms for each in told), sum(each.tasks for each in told), places)


def _by_name(told: Sequence[Sequence[Named]]) -> list[list[Named]]:
    """What each says of the same, in the order in which it is first named."""
    found: dict[str, list[Named]] = {}
    for each in (one for some in told for one in some):
        found.setdefault(each.name, []).append(each)
    return list(found.values())
