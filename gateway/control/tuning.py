"""Which settings change under a running gateway, which take a restart, and what the data plane is told.  Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.control.config import GatewaySpec, Limits, RetrySpec
from gateway.documents import Spec
from gateway.proxy.clocks import Clocks
from gateway.proxy.downstream import DownstreamLimits
from gateway.proxy.handshakes import ArrivalLimits
from gateway.proxy.retries import RetryLimits
from gateway.proxy.tuning import Tuning
from gateway.proxy.upstream import UpstreamLimits

LIVE: Final = frozenset(
    {
        "policies",
        "members",
        "keys",
        "authority.keys",
        "authority.maxTtl",
        "authority.maxVisits",
        "authority.maxHops",
        "trustedHops",
        "zone",
        "ring",
        "retries",
        "reload",
        "limits",
        "overload",
        "telemetry.maxLines",
        "telemetry.maxRefusedLines",
        "telemetry.tracing.sampleRatio",
        "telemetry.tracing.slow",
        "telemetry.tracing.keptPerSecond",
    }
)
"""What takes effect without a restart.  All else has made something when the gateway started, such as a socket, a
process, or a store with what it remembers."""


class Settings(NamedTuple):
    """What comes of an edit."""

    spec: GatewaySpec
    """What is to be in force: what may change as it is wanted, the rest as it was."""
    restart: tuple[str, ...]
    """What is wanted otherwise and takes a restart, as ``listeners[0].address``."""


def settled(running: GatewaySpec, wanted: GatewaySpec) -> Settings:
    """What of `wanted` takes effect where `running` is in force."""
    spec, restart = _settled(running, wanted, "")
    assert isinstance(spec, GatewaySpec)
    return Settings(spec, tuple(restart))


def _settled(running: Spec, wanted: Spec, at: str) -> tuple[Spec, list[str]]:
    changes: dict[str, object] = {}
    restart: list[str] = []
    for name, field in type(running).model_fields.items():
        before, after = getattr(running, name), getattr(wanted, name)
        path = f"{at}{field.alias or name}"
        if before == after:
            continue
        if path in LIVE:
            changes[name] = after
        elif isinstance(before, Spec) and isinstance(after, type(before)):
            changes[name], more = _settled(before, after, f"{path}.")
            restart += more
        else:
            restart += _differences(before, after, path)
    return running.model_copy(update=changes), restart


def _differences(before: object, after: object, path: str) -> Iterator[str]:
    """Where exactly two values differ of which nothing may change."""
    if isinstance(before, Spec) and isinstance(after, type(before)):
        for name, field in type(before).model_fields.items():
            yield from _differences(getattr(before, name), getattr(after, name), f"{path}.{field.alias or name}")
    elif (
        isinstance(before, tuple)
        and isinstance(after, tuple)
        and len(before) == len(after)
        and any(isinstance(each, Spec) for each in before)
    ):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif before != after:
        yield path


def plane_tuning(spec: GatewaySpec) -> Tuning:
    """What the data plane goes by."""
    limits = spec.limits
    return Tuning(
        upstream=UpstreamLimits(
            connect_timeout_s=limits.connect_timeout_s,
            idle_timeout_s=limits.upstream_idle_timeout_s,
            max_age_s=limits.upstream_max_connection_age_s,
            ping_after_s=limits.upstream_ping_after_s,
            ping_timeout_s=limits.upstream_ping_timeout_s,
            max_connections=limits.max_connections_per_agent,
            max_pending=limits.max_pending_per_agent,
            max_in_flight=limits.max_in_flight_per_agent,
        ),
        clocks=Clocks(
            body_s=limits.body_timeout_s,
            body_rate=limits.min_body_rate,
            response_s=limits.response_timeout_s,
            idle_s=limits.stream_idle_timeout_s,
            ceiling_s=limits.max_stream_duration_s,
            keep_alive_s=limits.sse_keep_alive_s,
        ),
        retries=_retries(spec.retries),
        overload=spec.overload,
        max_in_flight_per_capability=limits.max_in_flight_per_capability,
        max_pending_per_capability=limits.max_pending_per_capability,
        max_body_bytes=limits.max_body_bytes or sys.maxsize,
        max_timeout_s=limits.max_timeout_s,
        bound=spec.ring.bound,
    )


def downstream_limits(limits: Limits) -> DownstreamLimits:
    """What bounds each caller's connection."""
    return DownstreamLimits(
        handshake_timeout_s=limits.handshake_timeout_s,
        headers_timeout_s=limits.headers_timeout_s,
        idle_timeout_s=limits.idle_timeout_s,
        max_age_s=limits.max_connection_age_s,
        unread_s=limits.body_timeout_s,
        max_header_bytes=limits.max_header_bytes,
        max_headers=limits.max_headers,
        max_concurrent_streams=limits.max_concurrent_streams,
        arrivals=ArrivalLimits(
            max_connections=limits.max_connections,
            max_connections_per_address=limits.max_connections_per_address,
            max_handshakes_per_address=limits.max_handshakes_per_address,
            handshakes_per_second=limits.handshakes_per_second,
        ),
    )


def _retries(spec: RetrySpec) -> RetryLimits:
    return RetryLimits(
        attempts=spec.attempts,
        budget_percent=spec.budget_percent,
        budget_floor=spec.budget_floor,
        backoff_s=spec.backoff_s,
    )
