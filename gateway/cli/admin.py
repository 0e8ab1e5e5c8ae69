"""A running gateway's admin port, as the commands ask it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from gateway.admin.access import read_token

DEFAULT_ADMIN = "http://127.0.0.1:9901"
TIMEOUT_S = 10.0

AdminOption = Annotated[str, typer.Option("--admin", help="The gateway's admin URL.")]
TokenOption = Annotated[Path | None, typer.Option("--token-file", help="Has the token that the admin port takes.")]
CaOption = Annotated[Path | None, typer.Option("--cacert", help="The roots that vouch for the admin port, PEM.")]
CertOption = Annotated[Path | None, typer.Option("--cert", help="A certificate that the admin port takes, PEM.")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="The certificate's key, PEM.")]


def connected(
    admin: str, token_file: Path | None, cacert: Path | None, cert: Path | None, key: Path | None
) -> httpx.Client:
    """A client of the admin port at the URL `admin`; the others are what the options say.

    Raises:
        typer.Exit: with 2, the mistake being told: a file that cannot be used, one of two missing, or no URL.

    """
    try:
        return _client(admin, token_file, cacert, cert, key)
    except (OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _client(
    admin: str, token_file: Path | None, cacert: Path | None, cert: Path | None, key: Path | None
) -> httpx.Client:
    headers = {"authorization": f"Bearer {read_token(token_file)}"} if token_file is not None else {}
    if (cert is None) != (key is None):
        raise ValueError("--cert and --key go together")
    context = ssl.create_default_context(cafile=cacert)
    if cert is not None:
        context.load_cert_chain(cert, key)
    try:
        return httpx.Client(base_url=admin, headers=headers, verify=context, timeout=TIMEOUT_S, trust_env=False)
    except httpx.InvalidURL as error:
        raise ValueError(f"--admin: {error}") from None


def asked(client: httpx.Client, path: str, method: str = "GET", body: bytes = b"") -> Any:
    """What the admin port answers to a request, which may have a body of JSON, read as JSON.

    Raises:
        httpx.HTTPError: it does not answer, or refuses; the message says why.

    """
    headers = {"content-type": "application/json"} if method != "GET" else None  # which no form of a page sends
    answer = client.request(method, path, content=body, headers=headers)
    if not answer.is_success:
        raise httpx.HTTPError(f"{answer.status_code}: {_why(answer)}")
    return answer.json()


def _why(answer: httpx.Response) -> str:
    if answer.headers.get("content-type", "").startswith("application/json"):
        return str(answer.json().get("why", answer.text))
    return answer.text.strip()


def events(client: httpx.Client, path: str) -> Iterator[tuple[str, bytes]]:
    """Name and data of each event of a stream.

    Raises:
        httpx.HTTPError: it does not answer, refuses, or breaks off.

    """
    with client.stream("GET", path) as answer:
        if not answer.is_success:
            answer.read()
            raise httpx.HTTPError(f"{answer.status_code}: {_why(answer)}")
        name = ""
        for line in answer.iter_lines():
            kind, _, value = line.partition(": ")
            if kind == "event":
                name = value
            elif kind == "data":
                yield name, value.encode()
