"""What a webhook is told, signed, and what it answers.  Pure.

Signed as Standard Webhooks has it (https://www.standardwebhooks.com): HMAC-SHA256 over id, time and body, so that
the receiver knows who asks, and when.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from enum import Enum
from typing import Final

import msgspec

from gateway.approvals.desk import Decision, Scope, Waiting
from gateway.policy.model import WEBHOOK

MIN_SECRET_BYTES: Final = 24
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_TEXT: Final = 500
"""Characters of a why, and of a name."""
_PREFIX = "whsec_"


class Call(Enum):
    """What became of a request to the webhook."""

    ANSWERED = "answered"
    """It decided."""
    TAKEN = "taken"
    """It is told, and decides later, or somebody else does."""
    FAILED = "failed"
    """It does not answer, or not as it should."""


class Verb(Enum):
    """A decision, as it is written."""

    APPROVE = "approve"
    DENY = "deny"


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """A decision as it comes: from an operator, or from the webhook, which may say `by` whom."""

    decision: Verb
    why: str = ""
    scope: Scope = Scope.PACKET
    by: str = ""

    def of(self, by: str) -> Decision:
        """The decision of `by`."""
        return Decision(self.decision is Verb.APPROVE, by, self.why[:MAX_TEXT], self.scope, self.by[:MAX_TEXT])


class Told(msgspec.Struct, frozen=True):
    """The body of a request."""

    type: str
    instance: str
    """The host that the packet waits at."""
    approval: Waiting


def read_secret(text: str) -> bytes:
    """The key in a file's text: ``whsec_`` and base64, or else the text itself.

    Raises:
        ValueError: it is none, or too short.

    """
    text = text.strip()
    try:
        secret = base64.b64decode(text[len(_PREFIX) :], validate=True) if text.startswith(_PREFIX) else text.encode()
    except binascii.Error:
        raise ValueError(f"what follows {_PREFIX} is not base64") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"expected a secret of {MIN_SECRET_BYTES} bytes or more")
    return secret


def request(waiting: Waiting, instance: str, secret: bytes, now: float) -> tuple[bytes, dict[str, str]]:
    """Body and header fields of the request that tells of `waiting`, sent at `now` in seconds since the epoch."""
    body = msgspec.json.encode(Told("approval.asked", instance, waiting))
    return body, {
        "content-type": "application/json",
        "webhook-id": waiting.id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": signature(secret, waiting.id, int(now), body),
    }


def signature(secret: bytes, id_: str, at: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    signed = hmac.digest(secret, b"%s.%d.%s" % (id_.encode(), at, body), hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode('ascii')}"


def read_answer(status: int, body: bytes) -> Decision | None:
    """What an answer decides; ``None`` when it leaves that for later.

    Raises:
        ValueError: it is no answer that counts; the message says why.

    """
    if not 200 <= status < 300:
        raise ValueError(f"it answered {status}")
    if status != 200 or not body.strip():
        return None
    try:
        return msgspec.json.decode(body, type=Said).of(WEBHOOK)
    except msgspec.MsgspecError as error:
        raise ValueError(f"its answer is no decision: {error}") from None
