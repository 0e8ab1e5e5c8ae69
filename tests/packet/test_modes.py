"""Binary mode to structured mode and back, and the agreement of header fields with the envelope."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from gateway.identity import SpiffeId
from gateway.messages import Fields, RequestHead
from gateway.packet import MalformedPacketError
from gateway.packet.envelope import Envelope, decode, validate
from gateway.packet.modes import disagreement, from_binary, to_binary, to_structured
from gateway.packet.payload import compact
from tests.packet.envelopes import documents

CALLER = SpiffeId("spiffe://mesh.local/ns/agents/sa/planner")
DIGEST = b"sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:"


def head(fields: Fields, authority: bytes = b"gateway") -> RequestHead:
    return RequestHead(b"POST", b"https", authority, b"/run", fields)


def envelope(**members: Any) -> Envelope:
    return validate({"specversion": "1.0", "id": "i", "capabilities": ["code.execute", "lang.python"], **members})


def test_every_field_of_binary_mode_has_its_member() -> None:
    fields = [
        (b"flight-capability", b"code.execute;min-trust=0.85"),
        (b"flight-capability", b"lang.python"),
        (b"flight-id", b'"i"'),
        (b"flight-conversation", b'"c\\"1"'),
        (b"flight-task", b'"t"'),
        (b"flight-parent", b'"p"'),
        (b"flight-timeout", b"1500"),
        (b"flight-budget", b"tokens=12000, hops=4"),
        (b"flight-context", DIGEST + b', ref="s3://c/1"'),
        (b"flight-credential", b"e30.e30.c2ln"),
        (b"flight-from", b'"spiffe://mesh.local/a"'),
        (b"flight-lineage", b'"spiffe://mesh.local/u", "spiffe://mesh.local/a"'),
        (b"flight-trial", b"?1"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"tracestate", b""),
        (b"content-type", b"application/json"),
        (b"accept", b"*/*"),
    ]
    assert from_binary(head(fields), b'{"code":"6*7"}', str).document() == {
        "specversion": "1.0",
        "id": "i",
        "capabilities": ("code.execute", "lang.python"),
        "minTrust": 0.85,
        "conversation": 'c"1',
        "task": "t",
        "parent": "p",
        "timeoutMs": 1500,
        "budget": {"tokens": 12000, "hops": 4},
        "context": {"sha-256": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", "ref": "s3://c/1"},
        "credential": "e30.e30.c2ln",
        "from": "spiffe://mesh.local/a",
        "lineage": ("spiffe://mesh.local/u", "spiffe://mesh.local/a"),
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "extensions": {"flight-trial": "?1"},
        "datacontenttype": "application/json",
        "data": {"code": "6*7"},
    }


@given(documents)
def test_nothing_is_lost_between_the_modes(document: dict[str, Any]) -> None:
    fields, body = to_binary(validate(document))
    back = from_binary(head(fields), body, str)
    assert to_binary(back) == (fields, body)
    # What stands for absence (no budget, a trust of 0) and the form of the payload may be written otherwise.
    for member in document.keys() - {"data", "data_base64", "budget", "lineage", "minTrust", "extensions"}:
        assert back.document()[member] == validate(document).document()[member]


@given(documents)
def test_what_structured_mode_sends_agrees_with_itself(document: dict[str, Any]) -> None:
    document = {**document, "from": CALLER}
    fields, body = to_structured(validate(document))
    assert disagreement(head(fields), decode(body), caller=CALLER, lineage=document.get("lineage", ())) is None


def test_a_packet_without_an_id_is_given_one_and_the_host_may_name_the_capability() -> None:
    made = from_binary(head([], b"code.execute.flight.internal"), b"", lambda: "minted")
    assert (made.id, made.capabilities) == ("minted", ("code.execute",))


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ((b"flight-budget", b"tokens=1.5"), r"budget\.tokens: expected a whole number"),
        ((b"flight-budget", b"tokens=(1"), r"flight-budget: .* \(character \d+\)"),
        ((b"flight-context", b'sha-256="x"'), "flight-context: expected sha-256"),
        ((b"flight-context", b"sha-256=:eA==:"), "flight-context: expected sha-256"),
        ((b"flight-context", DIGEST + b", other=1"), "unknown field 'other'"),
        ((b"flight-credential", b"a b"), "credential"),
        ((b"flight-from", b"spiffe"), "from: expected text"),
        ((b"flight-trial", b"caf\xe9"), "extensions.flight-trial"),
        ((b"content-type", b"application/flightpacket+json"), "an envelope does not hold another one"),
    ],
)
def test_what_fits_no_envelope_is_told(field: tuple[bytes, bytes], told: str) -> None:
    with pytest.raises(MalformedPacketError, match=told):
        from_binary(head([(b"flight-capability", b"a"), field]), b"", lambda: "minted")


FULL = {
    "minTrust": 0.5,
    "conversation": "c",
    "task": "t",
    "parent": "p",
    "timeoutMs": 1500,
    "budget": {"tokens": 12, "hops": 4},
    "context": {"sha-256": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="},
    "credential": "e30.e30.c2ln",
    "extensions": {"flight-trial": "?1"},
}


def changed(name: bytes, value: bytes | None) -> str | None:
    """The disagreement after one header field of a full packet is changed, or taken away."""
    sent, body = to_structured(envelope(**FULL))
    fields = [each for each in sent if each[0] != name] + ([(name, value)] if value is not None else [])
    return disagreement(head(fields), decode(body), caller=CALLER)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (b"flight-id", b'"j"', 'flight-id: the header says "j", the envelope "i"'),
        (b"flight-id", None, "flight-id: the header is absent, the envelope says i"),
        (
            b"flight-capability",
            b"code.execute;min-trust=0.5",
            "flight-capability: the header says code.execute;min-trust=0.5, "
            "the envelope code.execute;min-trust=0.5, lang.python",
        ),
        (b"flight-conversation", b'"d"', 'flight-conversation: the header says "d", the envelope "c"'),
        (b"flight-task", None, 'flight-task: the header says nothing, the envelope "t"'),
        (b"flight-parent", b'"q"', 'flight-parent: the header says "q", the envelope "p"'),
        (b"flight-timeout", b"1501", "flight-timeout: the header says 1501, the envelope 1500"),
        (
            b"flight-budget",
            b"hops=4, tokens=13",
            "flight-budget: the header says hops=4, tokens=13, the envelope tokens=12, hops=4",
        ),
        (b"flight-context", None, f"flight-context: the header says nothing, the envelope {DIGEST.decode()}"),
        (b"flight-trial", b"?0", "flight-trial: the header says ?0, the envelope ?1"),
        (b"flight-other", b"?0", "flight-other: the header says ?0, the envelope nothing"),
    ],
)
def test_a_header_field_that_contradicts_the_envelope_is_told(name: bytes, value: bytes | None, told: str) -> None:
    assert changed(name, value) == told


def test_credentials_that_differ_are_not_shown() -> None:
    assert changed(b"flight-credential", b"x") == "flight-credential: the header and the envelope have different ones"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"flight-budget", b"hops=4, tokens=12"),
        (b"flight-capability", b"lang.python;min-trust=0.500, code.execute"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"flight-from", b'"spiffe://mesh.local/somebody-else"'),
    ],
)
def test_order_trace_context_and_fields_of_the_gateway_make_no_difference(name: bytes, value: bytes) -> None:
    assert changed(name, value) is None


def test_an_envelope_cannot_lie_about_its_origin() -> None:
    def told(**members: Any) -> str | None:
        fields, body = to_structured(envelope(**members))
        return disagreement(head(fields), decode(body), caller=CALLER)

    boss = "spiffe://mesh.local/boss"
    assert told(**{"from": CALLER}) is None
    assert told(**{"from": boss}) == f"from: the envelope says {boss}, the caller is {CALLER}"
    assert told(lineage=[boss]) == "lineage: the envelope says other principals than the caller's credential"


def test_the_body_is_the_payload_in_binary_mode_and_the_envelope_in_structured_mode() -> None:
    made = envelope(data={"n": 1})
    assert to_binary(made)[1] == b'{"n":1}'
    assert to_structured(made)[1] == compact(made.document())
