"""Contexts at rest: AES-256-GCM, bound to what they are and where they belong.

A sealed context is ``PFC1``, the key's mark (8 bytes), when it was stored (milliseconds since the epoch, 8 bytes), a
nonce (12 bytes), and the ciphertext with its tag.  Associated data are all before the nonce, the digest and the
conversation, so that nothing sealed can be passed off as another context, of another conversation, or as younger.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.contexts.store import Place

MAGIC: Final = b"PFC1"
KEY_BYTES: Final = 32
_MARK_BYTES, _NONCE_BYTES, _TAG_BYTES = 8, 12, 16
_HEAD_BYTES = len(MAGIC) + _MARK_BYTES + 8
OVERHEAD_BYTES: Final = _HEAD_BYTES + _NONCE_BYTES + _TAG_BYTES
"""By how much sealed bytes are more."""


class KeyFileError(ValueError):
    """A key file that cannot be used; the message says why."""


class DamagedError(ValueError):
    """Sealed bytes that were changed, or moved, or whose key is not here."""


class Opened(NamedTuple):
    """A context, and when it was stored, in seconds since the epoch."""

    body: bytes
    stored: float


class Cipher:
    """Seals with the first key, and opens with any."""

    def __init__(self, keys: Sequence[bytes], entropy: Callable[[int], bytes] = os.urandom) -> None:
        """Args: `keys` are of `KEY_BYTES` each, one at least; `entropy` gives so many random bytes."""
        self._keys = {_mark(key): AESGCM(key) for key in reversed(keys)}
        self._first = _mark(keys[0])
        self._entropy = entropy

    def seal(self, place: Place, body: bytes, now: float) -> bytes:
        """`body` as it is kept, at `now` in seconds since the epoch."""
        head = MAGIC + self._first + int(now * 1000).to_bytes(8, "big")
        # 96 random bits: safe for 2^32 contexts under a key (NIST SP 800-38D section 8.3).
        nonce = self._entropy(_NONCE_BYTES)
        return head + nonce + self._keys[self._first].encrypt(nonce, body, _bound_to(head, place))

    def open(self, place: Place, sealed: bytes) -> Opened:
        """What was sealed for `place`.

        Raises:
            DamagedError: it was not, or cannot be opened.

        """
        head, nonce = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES]
        if len(sealed) < OVERHEAD_BYTES or not head.startswith(MAGIC):
            raise DamagedError("no sealed context")
        key = self._keys.get(head[len(MAGIC) : len(MAGIC) + _MARK_BYTES])
        if key is None:
            raise DamagedError("sealed with a key that is not among contexts.keys")
        try:
            body = key.decrypt(nonce, sealed[_HEAD_BYTES + _NONCE_BYTES :], _bound_to(head, place))
        except InvalidTag:
            raise DamagedError("changed since it was sealed, or of another conversation") from None
        return Opened(body, int.from_bytes(head[-8:], "big") / 1000)


def _mark(key: bytes) -> bytes:
    return sha256(b"phoenixflight context key" + key).digest()[:_MARK_BYTES]


def _bound_to(head: bytes, place: Place) -> bytes:
    return head + bytes.fromhex(place.digest) + place.conversation.encode("ascii")


def new_key(entropy: Callable[[int], bytes] = os.urandom) -> str:
    """What stands in a new key file."""
    return base64.b64encode(entropy(KEY_BYTES)).decode("ascii") + "\n"


def load_keys(paths: Iterable[Path]) -> list[bytes]:
    """The keys in these files.

    Raises:
        KeyFileError: a file cannot be read, or is no key; nothing of what it says is told.

    """
    keys: list[bytes] = []
    for path in paths:
        try:
            key = base64.b64decode(path.read_bytes().strip(), validate=True)
        except OSError as error:
            raise KeyFileError(f"{path} cannot be read: {error.strerror or error}") from None
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise KeyFileError(f"{path}: expected 32 bytes in base64, as `phoenixflight contexts new-key` makes them")
        keys.append(key)
    return keys
