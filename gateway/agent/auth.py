"""Sending packets: an ``httpx.Auth`` that signs them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator
from os import PathLike
from pathlib import Path
from typing import cast
from uuid import UUID

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from gateway.identity import principal_from_certificate
from gateway.messages import RequestHead
from gateway.packet.digest import content_digest
from gateway.packet.keys import SigningKey, algorithm_of
from gateway.packet.signature import sign

_NONCE_BYTES = 16


class FlightAuth(httpx.Auth):
    """Makes each request a signed packet: ``httpx.Client(auth=FlightAuth(key, "planner-1"))``.

    A request without a ``flight-id`` gets one, a body gets its ``content-digest``, and an earlier signature is
    replaced.  The body is read into memory first.  Clients may be synchronous or asynchronous.
    """

    requires_request_body = True

    def __init__(
        self,
        key: SigningKey,
        keyid: str,
        *,
        clock: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Sign with `key`, an Ed25519 or P-256 private key or a shared secret, which the gateway knows as `keyid`.

        Raises:
            UnusableKeyError: the key is of another kind, or the secret is too short.

        """
        algorithm_of(key)
        self._key = key
        self._keyid = keyid
        self._clock = clock
        self._entropy = entropy

    @classmethod
    def from_svid(cls, certificate: str | PathLike[str], key: str | PathLike[str]) -> FlightAuth:
        """Sign with the key of the certificate that the agent shows to the gateway; both are PEM files.

        The gateway needs no key set for it.

        Raises:
            IdentityError: the certificate names no SPIFFE id.
            OSError: a file cannot be read.
            ValueError: a file holds something else, or a key that cannot sign packets.

        """
        leaf = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
        principal = principal_from_certificate(leaf.public_bytes(Encoding.DER))
        private = load_pem_private_key(Path(key).read_bytes(), password=None)
        return cls(cast(SigningKey, private), principal.id)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        headers = request.headers
        if "flight-id" not in headers:
            headers["flight-id"] = f'"{UUID(bytes=self._entropy(16), version=4)}"'
        if request.content:
            headers["content-digest"] = content_digest(request.content).decode("ascii")
        for name in ("signature-input", "signature"):
            headers.pop(name, None)
        nonce = self._entropy(_NONCE_BYTES).hex()
        for field, value in sign(_head(request), self._key, keyid=self._keyid, created=int(self._clock()), nonce=nonce):
            headers[field.decode("ascii")] = value.decode("ascii")
        yield request


def _head(request: httpx.Request) -> RequestHead:
    """The request as the gateway will see it."""
    url = request.url
    return RequestHead(
        request.method.encode("ascii"),
        url.raw_scheme,
        request.headers.get("host", "").encode("ascii"),
        url.raw_path,
        [(name.lower(), value) for name, value in request.headers.raw if name.lower() != b"host"],
    )
