"""Every header name that the gateway knows, in one place."""

from __future__ import annotations

from typing import Final

# Request fields that an agent sets.
CAPABILITY: Final[bytes] = b"flight-capability"
ID: Final[bytes] = b"flight-id"
CONVERSATION: Final[bytes] = b"flight-conversation"
TASK: Final[bytes] = b"flight-task"
PARENT: Final[bytes] = b"flight-parent"
TIMEOUT: Final[bytes] = b"flight-timeout"
BUDGET: Final[bytes] = b"flight-budget"
CONTEXT: Final[bytes] = b"flight-context"
CREDENTIAL: Final[bytes] = b"flight-credential"

# Request fields that only the gateway sets.
FROM: Final[bytes] = b"flight-from"
LINEAGE: Final[bytes] = b"flight-lineage"
CONTEXT_CONTENT: Final[bytes] = b"flight-context-content"
"""The bytes of the context that ``flight-context`` refers to, for an agent that cannot fetch them."""

PACKET: Final[frozenset[bytes]] = frozenset(
    {CAPABILITY, ID, CONVERSATION, TASK, PARENT, TIMEOUT, BUDGET, CONTEXT, CREDENTIAL, FROM, LINEAGE}
)
"""The request fields that make a packet; other ``flight-*`` fields are passed on."""

# Response fields.
AGENT: Final[bytes] = b"flight-agent"
DECISION: Final[bytes] = b"flight-decision"
ATTEMPTS: Final[bytes] = b"flight-attempts"
REPEATED: Final[bytes] = b"flight-repeated"
USAGE: Final[bytes] = b"flight-usage"
"""What the work has spent; from the agent, as a field or a trailer."""

# Others' names.
CONTENT_DIGEST: Final[bytes] = b"content-digest"
CONTENT_TYPE: Final[bytes] = b"content-type"
IDEMPOTENCY_KEY: Final[bytes] = b"idempotency-key"
MCP_SESSION: Final[bytes] = b"mcp-session-id"
RETRY_AFTER: Final[bytes] = b"retry-after"
SIGNATURE: Final[bytes] = b"signature"
SIGNATURE_INPUT: Final[bytes] = b"signature-input"
TRACEPARENT: Final[bytes] = b"traceparent"
TRACESTATE: Final[bytes] = b"tracestate"
BAGGAGE: Final[bytes] = b"baggage"

GATEWAY_ONLY: Final[frozenset[bytes]] = frozenset({FROM, LINEAGE, CONTEXT_CONTENT})
"""Removed from every request before anything reads it: only the gateway may set these."""

GATEWAY_ONLY_RESPONSE: Final[frozenset[bytes]] = frozenset({AGENT, DECISION, ATTEMPTS, REPEATED, ID})
"""Removed from every agent's response: the gateway answers for these itself."""

MESSAGE_FRAMING: Final[frozenset[bytes]] = frozenset(
    {b"content-length", b"transfer-encoding", b"connection", b"host", b"te", b"trailer"}
)
"""What a message's end or way depends on: spelled with ``_`` it is removed, for servers that fold it to ``-``."""

FORWARDING: Final[frozenset[bytes]] = frozenset({b"x-forwarded-client-cert", b"forwarded", b"x-real-ip"})
"""Identity and forwarding claims that an upstream might believe; with every ``x-forwarded-*``, removed
unless a trusted hop sent them."""

FORWARDING_PREFIX: Final[bytes] = b"x-forwarded-"


def sf_string(text: str) -> bytes:
    """`text` (printable ASCII) as an RFC 9651 String, section 4.1.6."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return b'"%s"' % text.encode("ascii")
