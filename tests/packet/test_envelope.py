"""Envelopes: what is one, what is none and why, and the published schema."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.packet import MalformedPacketError
from gateway.packet.envelope import MAX_BYTES, decode, encode, json_schema, validate
from gateway.packet.payload import MAX_DEPTH, compact, payload_members
from tests.packet.envelopes import documents

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "schemas" / "flightpacket-1.json").read_text())
LEAST = {"specversion": "1.0", "id": "i", "capabilities": ["code.execute"]}


def written(**members: Any) -> bytes:
    return compact(LEAST | {name.rstrip("_"): value for name, value in members.items()})


def conforms(document: object) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def test_the_published_schema_is_up_to_date() -> None:
    assert json_schema() == SCHEMA, "run `make schema`"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_examples_in_the_documentation_are_envelopes() -> None:
    examples = re.findall(r"```json\n(.*?)```", (DOCS / "flightpacket.md").read_text(), re.DOTALL)
    assert examples
    for example in examples:
        assert conforms(json.loads(example))
        decode(example.encode())


@given(documents)
def test_an_envelope_comes_back_as_it_was_written(document: dict[str, Any]) -> None:
    envelope = decode(compact(document))
    assert envelope.document() == validate(document).document()
    assert decode(encode(envelope)) == envelope
    assert json.loads(encode(envelope)) == document
    assert conforms(document)


@given(st.sampled_from(["", "application/json", "text/plain; charset=utf-8", "image/png"]), st.binary())
def test_a_payload_keeps_its_bytes(content_type: str, body: bytes) -> None:
    members = {"datacontenttype": content_type} if content_type else {}
    assert validate(LEAST | members | payload_members(content_type, body)).body == body


@pytest.mark.parametrize(
    "body",
    [b'{"b": 1}', b'{"a":1,"a":1}', b"1e2", b"[12345678901234567890]", b"NaN", b'"\\ud800"', b"[" * 5000, b"\xff"],
)
def test_json_that_would_not_come_back_byte_for_byte_stands_in_base64(body: bytes) -> None:
    assert payload_members("application/json", body) == {"data_base64": base64.b64encode(body).decode()}


def test_json_and_text_are_readable_in_an_envelope() -> None:
    assert payload_members("application/json", '{"b":[1.0,null],"a":"é"}'.encode()) == {
        "data": {"b": [1.0, None], "a": "é"}
    }
    assert payload_members("text/markdown", "# Plän\n".encode()) == {"data": "# Plän\n"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[]", "not a JSON object"),
        (b"\xff", "not I-JSON"),
        (b'{"id": 1,', "not I-JSON.*line 1 column"),
        (b'{"a":{"id":1,"id":2}}', "'id' stands twice in one object"),
        (b'{"minTrust":NaN}', "NaN is no number"),
        (b'{"timeoutMs":' + b"9" * 5000 + b"}", "not I-JSON"),
        (b"[" * 100_000, "nested deeper than 64"),
        (b" " * (MAX_BYTES + 1), f"larger than {MAX_BYTES} bytes"),
        (written(specversion="2.0"), "specversion: expected '1.0'"),
        (written(id=7), "id: expected text"),
        (written(id=""), "id: expected at least 1 character"),
        (written(id="é"), "id: expected text of the form"),
        (written(id=None), "id: expected text"),
        (written(capabilities=[]), "capabilities: expected at least 1 item"),
        (written(capabilities=["a", "b c"]), r"capabilities\.1: expected text of the form"),
        (written(capabilities=["a", "a"]), "capabilities: 'a' stands here twice"),
        (written(minTrust=1.1), "minTrust: expected 1.0 or less"),
        (written(minTrust=0.8555), "minTrust: expected at most three decimals"),
        (written(minTrust=True), "minTrust: expected a number"),
        (written(timeoutMs=0), "timeoutMs: expected 1 or more"),
        (written(timeoutMs=1.0), "timeoutMs: expected a whole number"),
        (written(timeoutMs="5"), "timeoutMs: expected a whole number"),
        (written(budget={"tokens": -1}), r"budget\.tokens: expected 0 or more"),
        (written(budget={"tokens": 1.5}), r"budget\.tokens: expected a whole number"),
        (written(budget={"tokens": True}), r"budget\.tokens: expected a whole number"),
        (written(budget={"Tokens": 1}), r"budget\.Tokens"),
        (written(context={"ref": "r"}), r"context\.sha-256: this field is required"),
        (written(context=None), "context: expected a mapping"),
        (written(from_="planner"), "from: 'planner' is not a SPIFFE id"),
        (written(lineage=["spiffe://a/b", "x"]), r"lineage\.1: 'x' is not a SPIFFE id"),
        (written(extensions={"flight-id": "x"}), "flight-id has a member of its own"),
        (written(extensions={"x-id": "x"}), r"extensions\.x-id"),
        (written(timeoutms=5), "unknown field 'timeoutms'; did you mean 'timeoutMs'?"),
        (written(data=1, data_base64="MQ=="), "data_base64: the payload stands in data and in data_base64"),
        (written(data_base64="!"), "data_base64: "),
        (written(data=[1], datacontenttype="text/plain"), "data: expected text, as datacontenttype is text/plain"),
        (written(data={"a": [0, 2**53]}), r"data\.a\.1: an integer beyond"),
        (written().replace(b"}", b',"data":{"a":[1e999]}}'), r"data\.a\.0: a number beyond"),
        (written().replace(b"}", b',"data":{"a":"\\ud800"}}'), r"data\.a: text with half a surrogate pair"),
        (written(datacontenttype="application/flightpacket+json"), "an envelope does not hold another one"),
        (written(signature="e30.e30.e30"), "signature: expected text of the form"),
    ],
)
def test_what_is_no_envelope_is_told_by_member_and_place(text: bytes, told: str) -> None:
    with pytest.raises(MalformedPacketError, match=told):
        decode(text)


def test_data_nests_as_deep_as_the_limit_and_no_deeper() -> None:
    def nested(depth: int) -> bytes:
        return written().replace(b"}", b',"data":' + b"[" * depth + b"]" * depth + b"}")

    decode(nested(MAX_DEPTH))
    with pytest.raises(MalformedPacketError, match=f"data: nested deeper than {MAX_DEPTH}"):
        decode(nested(MAX_DEPTH + 1))


def test_a_flood_of_mistakes_is_told_briefly() -> None:
    with pytest.raises(MalformedPacketError) as caught:
        decode(written(capabilities=[" "] * 10_000))
    assert len(str(caught.value)) < 1000


@given(st.binary(max_size=60) | documents.map(compact).map(lambda text: text[:-2]))
def test_no_bytes_do_anything_but_decode_or_name_the_mistake(text: bytes) -> None:
    try:
        decode(text)
    except MalformedPacketError as error:
        assert str(error)
