"""What the gateway's own authority does for token exchange: it takes credentials, and signs JWTs for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.authority import Authority, Credential, CredentialError, invalid
from gateway.authority.keys import encoded
from gateway.identity import Principal
from gateway.refusal import Refusal

TYPE: Final = "JWT"
"""The header's ``typ``: none that passes for a handoff credential (RFC 8725 section 3.11)."""


class Vouching:
    """By the authority in force."""

    def __init__(self, authority: Callable[[], Authority]) -> None:
        self._authority = authority

    def verify(self, raw: bytes, principal: Principal, now: float) -> Credential | Refusal:
        """The credential `raw`, if `principal` may show it at `now` with its certificate; else why not."""
        try:
            return self._authority().verify(raw, principal, now)
        except CredentialError as error:
            return invalid(error)

    def sign(self, claims: Mapping[str, object]) -> str:
        """A JWT (RFC 7519) of `claims` and ``iss``, by the key that signs credentials, too."""
        authority = self._authority()
        key = authority.ring.signing
        header = encoded(msgspec.json.encode({"alg": key.algorithm, "kid": key.kid, "typ": TYPE}))
        message = header + b"." + encoded(msgspec.json.encode({"iss": authority.spec.issuer, **claims}))
        return (message + b"." + encoded(key.sign(message))).decode("ascii")
