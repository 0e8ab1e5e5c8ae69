"""The targets by name: that of their corpus, too."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz import documents, http1_requests, http1_responses, http2_agents, http2_callers, packets

TARGETS: dict[str, Callable[[bytes], None]] = {
    "packet": packets.check_packet,
    "envelope": packets.check_envelope,
    "http1-request": http1_requests.check,
    "http1-response": http1_responses.check,
    "http2-caller": http2_callers.check,
    "http2-agent": http2_agents.check,
    "policy": documents.check_policies,
    "members": documents.check_members,
}
