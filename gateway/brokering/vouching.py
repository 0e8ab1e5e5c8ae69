"""What the gateway's own authority says to third parties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.authority import Authority
from gateway.authority.keys import encoded

TYPE: Final = "JWT"
"""The header's ``typ``: none that passes for a handoff credential (RFC 8725 section 3.11)."""


def vouch(authority: Authority, claims: Mapping[str, object]) -> str:
    """A JWT (RFC 7519) of `claims` and ``iss``, by the key that signs credentials, too."""
    key = authority.ring.signing
    header = encoded(msgspec.json.encode({"alg": key.algorithm, "kid": key.kid, "typ": TYPE}))
    message = header + b"." + encoded(msgspec.json.encode({"iss": authority.spec.issuer, **claims}))
    return (message + b"." + encoded(key.sign(message))).decode("ascii")
