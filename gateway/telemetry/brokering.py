"""Metrics of secrets and tokens: by the names of documents, which are all that is told of them."""

from __future__ import annotations

from gateway.brokering.broker import Broker
from gateway.brokering.exchange import TokenExchanges
from gateway.brokering.servers import AuthorizationServers
from gateway.telemetry.counters import Reading


def brokering_readings(broker: Broker, servers: AuthorizationServers) -> tuple[Reading, ...]:
    """What docs/metrics.md tells of secrets that agents are given, and of the tokens that it takes."""
    return (
        Reading(
            "phoenixflight_brokered_secrets",
            "Secrets that agents were given, or were not, by document.",
            ("document", "result"),
            lambda: broker.counts,
        ),
        Reading(
            "phoenixflight_token_fetches",
            "Questions to authorization servers, by document and what came of them.",
            ("document", "result"),
            lambda: servers.counts,
        ),
    )


def exchange_readings(exchanges: TokenExchanges) -> tuple[Reading, ...]:
    """The same of tokens that agents asked for."""
    return (
        Reading(
            "phoenixflight_token_exchanges",
            "Requests for a token, by what came of them.",
            ("outcome",),
            lambda: {(outcome,): count for outcome, count in exchanges.outcomes.items()},
        ),
    )
