"""Structured mode: a whole FlightPacket as one JSON document, ``application/flightpacket+json``.  Pure.

Modelled on the JSON format of CloudEvents 1.0, section 3.  The document is I-JSON (RFC 7493) and closed: a member that
is not known is refused, since a misspelt limit would be no limit; unknown header fields stand in ``extensions``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from gateway.documents import Document, DocumentError, ErrorAt, Spec
from gateway.identity import SpiffeId, parse_spiffe_id
from gateway.packet import fields as names
from gateway.packet.payload import check_i_json, compact, first_repeated, is_json, parse_json
from gateway.packet.values import MalformedPacketError

MEDIA_TYPE: Final = "application/flightpacket+json"
SPECVERSION: Final = "1.0"
SCHEMA_ID: Final = "urn:phoenixflight:schema:flightpacket-1"
MAX_BYTES: Final = 1024 * 1024
_MAX_TOLD = 5


def _base64(text: str) -> str:
    base64.b64decode(text, validate=True)
    return text


def _one_spelling(text: str) -> str:
    if base64.b64encode(base64.b64decode(text)).decode() != text:
        raise ValueError("base64 with stray bits at its end; the same bytes have another spelling")
    return text


def _thousandths(value: float) -> float:
    if round(value, 3) != value:
        raise ValueError("expected at most three decimals, as flight-capability can carry")
    return value


def _without_repeats(items: tuple[str, ...]) -> tuple[str, ...]:
    repeated = first_repeated(items)
    if repeated is not None:
        raise ValueError(f"{repeated!r} stands here twice")
    return items


def _extension(name: str) -> str:
    if name.encode() in names.PACKET:
        raise ValueError(f"{name} has a member of its own")
    return name


# What the types of RFC 9651 can carry, section 3.3: whatever stands in an envelope also fits the header fields.
_Text = Annotated[str, Field(min_length=1, pattern=r"^[ -~]+$")]
_Token = Annotated[str, Field(pattern=r"^[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*$")]
_Key = Annotated[str, Field(pattern=r"^[a-z*][a-z0-9_\-.*]*$")]
_Count = Annotated[int, Field(strict=True, ge=0, le=999_999_999_999_999)]
_FieldName = Annotated[str, Field(pattern=r"^flight-[a-z0-9!#$%&'*+\-.^_`|~]+$"), AfterValidator(_extension)]
_FieldValue = Annotated[str, Field(pattern=r"^[!-~]([ -~]*[!-~])?$")]
_Principal = Annotated[
    SpiffeId, AfterValidator(parse_spiffe_id), WithJsonSchema({"type": "string", "pattern": "^spiffe://"})
]
_CLOSED: Final[dict[str, JsonValue]] = {"additionalProperties": False}


class Context(Spec):
    """The conversational context that a packet refers to."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    sha_256: Annotated[str, Field(alias="sha-256", pattern=r"^[A-Za-z0-9+/]{43}=$"), AfterValidator(_one_spelling)]
    """SHA-256 of the context, in base64."""
    ref: _Text = ""
    """Where the context can be had."""


NO_CONTEXT: Final = Context.model_construct(sha_256="")


class Envelope(Spec):
    """A FlightPacket as one JSON document (structured mode)."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"not": {"required": ["data", "data_base64"]}}
    )

    specversion: Literal["1.0"]
    """The version of this format."""
    id: _Text
    """The packet's id."""
    capabilities: Annotated[
        tuple[_Token, ...],
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_without_repeats),
    ]
    """What the receiving agent must be able to do, all of it."""
    min_trust: Annotated[float, Field(strict=True, ge=0, le=1), AfterValidator(_thousandths)] = 0.0
    """The least trust score of the receiving agent, with at most three decimals."""
    conversation: _Text = ""
    """Packets of one conversation go to the same agent while it is there."""
    task: _Text = ""
    """The task that the packet belongs to."""
    parent: _Text = ""
    """The packet that it was born from."""
    timeout_ms: Annotated[_Count, Field(ge=1)] = 0
    """Time left, in milliseconds."""
    budget: Annotated[Mapping[_Key, _Count], Field(json_schema_extra=_CLOSED)] = {}
    """What is left to spend, by kind."""
    context: Context = NO_CONTEXT
    """The conversational context."""
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9\-._~+/]+=*$")] = ""
    """The handoff credential that the sender was given, a JWT."""
    from_: Annotated[_Principal, Field(alias="from")] = SpiffeId("")
    """Who sent the packet, as the gateway says."""
    lineage: tuple[_Principal, ...] = ()
    """The principals that the work has passed through, oldest first, as the gateway says."""
    traceparent: _FieldValue = ""
    """W3C trace context."""
    tracestate: _FieldValue = ""
    """W3C trace context."""
    baggage: _FieldValue = ""
    """W3C baggage."""
    extensions: Annotated[Mapping[_FieldName, _FieldValue], Field(json_schema_extra=_CLOSED)] = {}
    """Other flight-* header fields: their values as they stand on the wire, by name."""
    datacontenttype: _FieldValue = ""
    """The payload's media type."""
    data: Annotated[JsonValue, BeforeValidator(check_i_json)] = None
    """The payload: any JSON value where datacontenttype is JSON or absent, else its text."""
    data_base64: Annotated[str, AfterValidator(_base64), Field(alias="data_base64")] = ""
    """The payload in base64, when it does not stand in data."""
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+\.\.[A-Za-z0-9_\-]+$")] = ""
    """A compact JWS with detached content (RFC 7515 appendix F) over the canonical form (RFC 8785) of the rest."""

    @model_validator(mode="after")
    def _payload_stands_once(self) -> Envelope:
        if {"data", "data_base64"} <= self.model_fields_set:
            raise ErrorAt("the payload stands in data and in data_base64; keep one", "data_base64")
        if "data" in self.model_fields_set and not is_json(self.datacontenttype) and not isinstance(self.data, str):
            raise ErrorAt(f"expected text, as datacontenttype is {self.datacontenttype}", "data")
        if self.datacontenttype.partition(";")[0].strip().lower() == MEDIA_TYPE:
            raise ErrorAt("an envelope does not hold another one", "datacontenttype")
        return self

    @property
    def body(self) -> bytes:
        """The payload, as binary mode carries it."""
        if "data" not in self.model_fields_set:
            return base64.b64decode(self.data_base64)
        if is_json(self.datacontenttype):
            return compact(self.data)
        return str(self.data).encode()

    def document(self) -> dict[str, Any]:
        """The JSON document, with the members that were given and no others."""
        return self.model_dump(by_alias=True, exclude_unset=True)


def validate(content: Mapping[str, object]) -> Envelope:
    """The parsed JSON object `content` as an envelope.

    Raises:
        MalformedPacketError: with the members that are not as they should be, and why.

    """
    try:
        return Document("envelope", dict(content), {}).validate(Envelope)
    except DocumentError as error:
        raise MalformedPacketError("; ".join(problem.message for problem in error.problems[:_MAX_TOLD])) from None


def decode(text: bytes, *, max_bytes: int = MAX_BYTES) -> Envelope:
    """Read an envelope.

    Raises:
        MalformedPacketError: it is too large, no I-JSON, or a member is not as it should be; the message names it.

    """
    if len(text) > max_bytes:
        raise MalformedPacketError(f"the envelope is larger than {max_bytes} bytes")
    try:
        content = parse_json(text)
    except ValueError as error:
        raise MalformedPacketError(f"the envelope is not I-JSON: {error}") from None
    if not isinstance(content, dict):
        raise MalformedPacketError("the envelope is not a JSON object")
    return validate(content)


def encode(envelope: Envelope) -> bytes:
    """Write `envelope`, compact, members in the order of the schema."""
    return compact(envelope.document())


class _JsonSchema(GenerateJsonSchema):
    """As a reader wants it: no titles that repeat names, no defaults that stand for absence."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an envelope; what it cannot say, `decode` still checks."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    return schema | Envelope.model_json_schema(schema_generator=_JsonSchema)
