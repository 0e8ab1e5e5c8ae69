"""Reading FlightPackets from header fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import RequestHead
from gateway.packet import MalformedPacketError, parse, sift
from gateway.packet.fields import sf_string
from gateway.packet.packet import parse_budget, parse_capabilities


def head(*fields: tuple[bytes, bytes], authority: bytes = b"gateway") -> RequestHead:
    return RequestHead(b"POST", b"https", authority, b"/", list(fields))


def read(*fields: tuple[bytes, bytes], authority: bytes = b"gateway"):  # type: ignore[no-untyped-def]
    request = head(*fields, authority=authority)
    return parse(request, sift(request.fields).flight, lambda: "minted")


CODE = (b"flight-capability", b"code.execute, lang.python;min-trust=0.9")


def test_every_field_gets_its_type() -> None:
    packet = read(
        CODE,
        (b"flight-id", b'"id-1"'),
        (b"flight-conversation", b'"c\\"1"'),
        (b"flight-task", b'"t"'),
        (b"flight-parent", b'"p"'),
        (b"flight-timeout", b"1500"),
        (b"flight-budget", b"tokens=12000, hops=4"),
    )
    assert packet.capabilities.names == ("code.execute", "lang.python")
    assert packet.capabilities.min_trust == 0.9
    assert (packet.id, packet.conversation, packet.task, packet.parent) == ("id-1", 'c"1', "t", "p")
    assert packet.timeout_ms == 1500


def test_capabilities_in_several_lines_are_one_list() -> None:
    packet = read((b"flight-capability", b"a"), (b"flight-capability", b"b, a"))
    assert packet.capabilities.names == ("a", "b")


@pytest.mark.parametrize(
    ("fields", "affinity"),
    [
        ([(b"flight-conversation", b'"c"'), (b"mcp-session-id", b"m"), (b"flight-task", b'"t"')], b"c"),
        ([(b"mcp-session-id", b"m"), (b"flight-task", b'"t"')], b"m"),
        ([(b"flight-task", b'"t"'), (b"flight-id", b'"i"')], b"t"),
        ([(b"flight-id", b'"i"')], b"i"),
        ([], b"minted"),
    ],
)
def test_affinity_is_the_conversation_else_the_session_else_the_task_else_the_id(
    fields: list[tuple[bytes, bytes]], affinity: bytes
) -> None:
    assert read(CODE, *fields).affinity == affinity


def test_the_host_names_the_capability_when_the_header_is_absent() -> None:
    assert read(authority=b"code.execute.flight.internal:443").capabilities.names == ("code.execute",)


def test_twice_the_same_item_is_malformed() -> None:
    with pytest.raises(MalformedPacketError, match=r"flight-id.*character 3"):
        read(CODE, (b"flight-id", b'"a"'), (b"flight-id", b'"b"'))


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=50))
def test_strings_survive_the_wire(text: str) -> None:
    assert read(CODE, (b"flight-conversation", sf_string(text))).conversation == text


@given(st.binary(max_size=60))
def test_no_capability_header_does_anything_but_parse_or_name_the_mistake(raw: bytes) -> None:
    try:
        capabilities = parse_capabilities(raw)
    except MalformedPacketError as error:
        assert "flight-capability" in str(error)
    else:
        assert capabilities.names


@given(st.sampled_from([b"flight-from", b"flight-lineage", b"forwarded", b"x-forwarded-for", b"x-real-ip"]), st.data())
def test_no_spelling_of_a_reserved_field_gets_through(name: bytes, data: st.DataObject) -> None:
    spelled = bytes(data.draw(st.sampled_from([byte, ord("_")])) if byte == ord("-") else byte for byte in name)
    assert sift([(spelled, b"x")]).onward == []


def test_a_trusted_hop_is_believed_about_forwarding_but_never_about_identity() -> None:
    fields = [(b"x-forwarded-for", b"1.2.3.4"), (b"flight-from", b'"spiffe://a/b"')]
    assert sift(fields, trusted_hop=True).onward == [(b"x-forwarded-for", b"1.2.3.4")]


@pytest.mark.parametrize(
    ("raw", "budget"),
    [
        (b"tokens=12000, hops=4", {"tokens": 12000, "hops": 4}),
        (b"hops=0", {"hops": 0}),
        (b'tokens=12, share=0.5, name="x", flag', {"tokens": 12}),
    ],
)
def test_a_budget_is_its_whole_numbers(raw: bytes, budget: dict[str, int]) -> None:
    assert parse_budget(raw) == budget
