"""Content-Digest (RFC 9530): is a body the one that its sender meant?  Sans-IO."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from hmac import compare_digest
from typing import Any

import http_sf

from gateway.packet.values import MalformedPacketError

MISMATCH = "content-digest: the body is not the one it was made of"
"""How the sender of such a body is told."""

# Strongest first (RFC 9530 section 5), with the name that hashlib knows and the size in bytes. The registry's other
# algorithms are insecure.
_ALGORITHMS = {"sha-512": ("sha512", 64), "sha-256": ("sha256", 32)}
_COMMON = re.compile(rb"sha-256=:([A-Za-z0-9+/]{43}=):")


class DigestCheck:
    """Compares a body, fed to it in pieces, with the strongest digest that its ``content-digest`` gives."""

    __slots__ = ("_expected", "_hash")

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self._hash = hashlib.new(algorithm)
        self._expected = expected

    def update(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self._hash.update(piece)

    def matches(self) -> bool:
        """Whether the pieces so far are the whole body that the digest was made of."""
        return compare_digest(self._hash.digest(), self._expected)


def digest_check(field: bytes) -> DigestCheck | None:
    """The check that a ``content-digest`` field asks for; ``None`` when it names no algorithm known here.

    Args:
        field: the field's value, its lines combined.

    Raises:
        MalformedPacketError: it is no Dictionary of Byte Sequences, or a digest is not as long as its algorithm makes.

    """
    common = _COMMON.fullmatch(field)
    if common is not None:
        return DigestCheck("sha256", b64decode(common[1]))
    try:
        digests: Any = http_sf.parse(field, tltype="dictionary")
    except http_sf.StructuredFieldError as error:
        raise MalformedPacketError(f"content-digest: {error.args[0]} (character {error.position})") from None
    for name, (algorithm, size) in _ALGORITHMS.items():
        if name not in digests:
            continue
        value = digests[name][0]
        if not isinstance(value, bytes) or len(value) != size:
            at = field.find(name.encode())
            raise MalformedPacketError(f"content-digest: {name} is no Byte Sequence of {size} bytes (character {at})")
        return DigestCheck(algorithm, value)
    return None


def content_digest(body: bytes) -> bytes:
    """The value of a ``content-digest`` field for `body`."""
    return b"sha-256=:%s:" % b64encode(hashlib.sha256(body).digest())
