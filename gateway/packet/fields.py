"""Every header name that the gateway knows, in one place."""

from __future__ import annotations

# Request fields that an agent sets.
CAPABILITY = b"flight-capability"
ID = b"flight-id"
CONVERSATION = b"flight-conversation"
TASK = b"flight-task"
PARENT = b"flight-parent"
TIMEOUT = b"flight-timeout"
BUDGET = b"flight-budget"
CONTEXT = b"flight-context"
CREDENTIAL = b"flight-credential"

# Request fields that only the gateway sets.
FROM = b"flight-from"
LINEAGE = b"flight-lineage"
CONTEXT_CONTENT = b"flight-context-content"
"""The bytes of the context that ``flight-context`` refers to, for an agent that cannot fetch them."""

PACKET = frozenset({CAPABILITY, ID, CONVERSATION, TASK, PARENT, TIMEOUT, BUDGET, CONTEXT, CREDENTIAL, FROM, LINEAGE})
"""The request fields that make a packet; other ``flight-*`` fields are passed on."""

# Response fields.
AGENT = b"flight-agent"
DECISION = b"flight-decision"
ATTEMPTS = b"flight-attempts"
REPEATED = b"flight-repeated"
USAGE = b"flight-usage"
"""What the work has spent; from the agent, as a field or a trailer."""

# Others' names.
CONTENT_DIGEST = b"content-digest"
CONTENT_TYPE = b"content-type"
IDEMPOTENCY_KEY = b"idempotency-key"
MCP_SESSION = b"mcp-session-id"
RETRY_AFTER = b"retry-after"
SIGNATURE = b"signature"
SIGNATURE_INPUT = b"signature-input"
TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
BAGGAGE = b"baggage"

GATEWAY_ONLY = frozenset({FROM, LINEAGE, CONTEXT_CONTENT})
"""Removed from every request before anything reads it: only the gateway may set these."""

GATEWAY_ONLY_RESPONSE = frozenset({AGENT, DECISION, ATTEMPTS, REPEATED, ID})
"""Removed from every agent's response: the gateway answers for these itself."""

MESSAGE_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"host", b"te", b"trailer"})
"""What a message's end or way depends on: spelled with ``_`` it is removed, for servers that fold it to ``-``."""

FORWARDING = frozenset({b"x-forwarded-client-cert", b"forwarded", b"x-real-ip"})
"""Identity and forwarding claims that an upstream might believe; with every ``x-forwarded-*``, removed
unless a trusted hop sent them."""

FORWARDING_PREFIX = b"x-forwarded-"


def sf_string(text: str) -> bytes:
    """`text` (printable ASCII) as an RFC 9651 String, section 4.1.6."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return b'"%s"' % text.encode("ascii")
