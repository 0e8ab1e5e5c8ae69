"""What is compared by its parts, compiled or not."""

from __future__ import annotations

from gateway.messages import RequestHead, ResponseHead
from gateway.packet import Capabilities
from gateway.proxy.codec import Ended, Writable


def test_values_of_the_same_parts_are_one_key() -> None:
    known = {Capabilities(("code.execute",), 0.5): "found"}
    assert known[Capabilities(("code.execute",), 0.5)] == "found"
    assert Capabilities(("code.execute",)) not in known


def test_another_part_or_another_kind_of_value_is_another_value() -> None:
    assert ResponseHead(200, [(b"a", b"b")]) == ResponseHead(200, [(b"a", b"b")])
    assert ResponseHead(200, []) != ResponseHead(200, [(b"a", b"b")])
    assert Ended(1) != Writable(1)
    assert Ended(1) != 1


def test_a_value_shows_its_parts() -> None:
    head = RequestHead(b"GET", b"https", b"agents.flight.internal", b"/run", [(b"flight-task", b'"t"')])
    shown = repr(head)
    assert shown.startswith("RequestHead(b'GET', b'https', b'agents.flight.internal', b'/run', [(b'flight-task'")
