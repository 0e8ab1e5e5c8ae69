"""``phoenixflight packet``: FlightPackets as files, to make, sign, verify and read."""

from __future__ import annotations

import random
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import JsonValue

from gateway.decision import uuid7
from gateway.packet import MalformedPacketError
from gateway.packet.envelope import SPECVERSION, Envelope, decode, encode, validate
from gateway.packet.jws import EnvelopeSignatureError, load_key_set, load_signing_key, sign, verify
from gateway.packet.modes import to_binary
from gateway.packet.payload import is_json, parse_json, payload_members

app = typer.Typer(no_args_is_help=True, help="FlightPackets as files: make, sign, verify and read them.")

EnvelopeArgument = Annotated[Path, typer.Argument(help="The file to read; '-' is standard input.")]
_STDIN = Path("-")


@app.command()
def new(
    capability: Annotated[list[str], typer.Option(help="What the receiver must be able to do; may be given again.")],
    min_trust: Annotated[float, typer.Option(help="The least trust score of the receiver, 0 to 1.")] = 0.0,
    id_: Annotated[str, typer.Option("--id", help="The packet's id; a UUIDv7 when it is not given.")] = "",
    conversation: Annotated[str, typer.Option(help="The conversation that it belongs to.")] = "",
    task: Annotated[str, typer.Option(help="The task that it belongs to.")] = "",
    parent: Annotated[str, typer.Option(help="The packet that it was born from.")] = "",
    timeout_ms: Annotated[int, typer.Option(help="Time left, in milliseconds.")] = 0,
    budget: Annotated[list[str], typer.Option(help="KIND=AMOUNT, like tokens=12000; may be given again.")] = [],  # noqa: B006
    data: Annotated[Path | None, typer.Option(help="The file with the payload; '-' is standard input.")] = None,
    content_type: Annotated[str, typer.Option(help="The payload's media type.")] = "application/json",
) -> None:
    """Make an envelope."""
    content: dict[str, Any] = {
        "id": id_ or uuid7(time.time(), random.getrandbits),
        "capabilities": capability,
        "minTrust": min_trust,
        "conversation": conversation,
        "task": task,
        "parent": parent,
        "timeoutMs": timeout_ms,
        "budget": dict(map(_amount, budget)),
    }
    content = {"specversion": SPECVERSION} | {member: value for member, value in content.items() if value}
    if data is not None:
        content |= {"datacontenttype": content_type, **_payload(content_type, _bytes(data))}
    try:
        _write(validate(content))
    except MalformedPacketError as error:
        _stop(error, 2)


def _amount(text: str) -> tuple[str, int]:
    kind, _, amount = text.partition("=")
    if not amount.isdecimal():
        raise typer.BadParameter(f"--budget {text}: expected KIND=AMOUNT, like tokens=12000")
    return kind, int(amount)


def _payload(content_type: str, body: bytes) -> dict[str, JsonValue]:
    """JSON is taken as the value that it is, without the white space of the file."""
    if not is_json(content_type):
        return payload_members(content_type, body)
    try:
        return {"data": parse_json(body)}
    except ValueError as error:
        raise typer.BadParameter(f"--data is not {content_type}: {error}; see --content-type") from None


@app.command("sign")
def sign_(
    key: Annotated[Path, typer.Option(help="A private key in PEM, or a JWK.")],
    kid: Annotated[str, typer.Option(help="The name by which verifiers know the key; the JWK's own by default.")] = "",
    envelope: EnvelopeArgument = _STDIN,
) -> None:
    """Sign an envelope: ES256, Ed25519 or HS256, as the key is."""
    unsigned = _read(envelope)
    try:
        signing_key = load_signing_key(key.read_text())
        name = kid or signing_key.kid
        if not name:
            raise typer.BadParameter(f"{key} has no kid of its own: name it with --kid")
        _write(sign(unsigned, signing_key, name))
    except (OSError, EnvelopeSignatureError) as error:
        _stop(f"{key}: {error}", 2)


@app.command("verify")
def verify_(
    keys: Annotated[Path, typer.Option(help="A JWK Set with the keys of those who may sign.")],
    envelope: EnvelopeArgument = _STDIN,
) -> None:
    """Check an envelope's signature.  Exit 3: it does not hold."""
    signed = _read(envelope)
    try:
        key_set = load_key_set(keys.read_text())
    except (OSError, EnvelopeSignatureError) as error:
        _stop(f"{keys}: {error}", 2)
    try:
        kid = verify(signed, key_set)
    except EnvelopeSignatureError as error:
        _stop(error, 3)
    typer.echo(f"ok: packet {signed.id}, signed by {kid}")


@app.command()
def show(
    envelope: EnvelopeArgument = _STDIN,
    binary: Annotated[bool, typer.Option("--binary", help="As header fields of binary mode, for curl.")] = False,
) -> None:
    """Print an envelope for people; the signature is not checked."""
    read = _read(envelope)
    if binary:
        for name, value in to_binary(read)[0]:
            typer.echo(f"-H {shlex.quote(f'{name.decode()}: {value.decode()}')}")
        return
    for label, text in _lines(read):
        typer.echo(f"{label:<15} {text}")
    if body := read.body:
        typer.echo("\n" + body.decode(errors="backslashreplace"))


def _lines(envelope: Envelope) -> Iterator[tuple[str, str]]:
    for member, value in envelope.document().items():
        match member, value:
            case (("data" | "data_base64"), _):
                yield "payload", f"{len(envelope.body)} bytes"
            case _, dict():
                yield member, ", ".join(f"{key}={each}" for key, each in value.items())
            case _, tuple():
                yield member, ", ".join(value)
            case _:
                yield member, str(value)


def _read(envelope: Path) -> Envelope:
    try:
        return decode(_bytes(envelope))
    except MalformedPacketError as error:
        _stop(f"{envelope}: {error}", 2)


def _bytes(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == _STDIN else path.read_bytes()
    except OSError as error:
        _stop(error, 2)


def _write(envelope: Envelope) -> None:
    typer.echo(encode(envelope))


def _stop(why: object, code: int) -> NoReturn:
    typer.echo(str(why), err=True)
    raise typer.Exit(code) from None
