"""What is told about health, in YAML: every setting, its unit and its default."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field, model_validator

from gateway.documents import Duration, ErrorAt, Spec


class OutlierSpec(Spec):
    """When an agent is ejected for how its packets fared, and for how long."""

    consecutive_failures: int = Field(default=5, ge=1)
    """So many failures in a row eject."""
    interval_s: Annotated[Duration, Field(alias="interval", gt=0)] = 10.0
    """How often the success rates of peers are compared, each time those since the last."""
    base_ejection_s: Annotated[Duration, Field(alias="baseEjection", gt=0)] = 30.0
    """An ejection takes this, times the ejections that count; as much time in service takes one off the count."""
    max_ejection_s: Annotated[Duration, Field(alias="maxEjection", gt=0)] = 300.0
    """No ejection takes longer."""
    max_ejected_share: float = Field(default=1 / 3, ge=0, le=1)
    """Of the ready agents of any capability, at most so many are out at once: rounded down, yet one of two or more, and
    never all.  0 ejects nobody."""
    min_agents: int = Field(default=5, ge=3)
    """Success rates are compared where so many agents of a capability had `min_requests`."""
    min_requests: int = Field(default=50, ge=1)
    """An agent with fewer in the interval is not compared."""
    deviations: float = Field(default=1.9, gt=0)
    """A success rate so many standard deviations below the mean ejects."""


class ReliabilitySpec(Spec):
    """What lowers the share of an agent that stays in."""

    half_life_s: Annotated[Duration, Field(alias="halfLife", gt=0)] = 60.0
    """After this, what was observed counts for half."""


class SlowStartSpec(Spec):
    """How the share grows on return."""

    duration_s: Annotated[Duration, Field(alias="duration", gt=0)] = 30.0
    """From a tenth to the whole."""
    new_members: bool = False
    """Whether agents that are new to a running gateway begin so, too."""


class CheckType(Enum):
    """What is asked."""

    HTTP = "http"
    """``GET path``; any 2xx is healthy."""
    GRPC = "grpc"
    """``grpc.health.v1.Health/Check`` of the whole server; ``SERVING`` is healthy."""
    TCP = "tcp"
    """A connection; with TLS and the agent's identity, where it has them."""


class CheckSpec(Spec):
    """Asking an agent whether it is well."""

    type: CheckType = CheckType.HTTP
    path: str | None = Field(default=None, pattern=r"^/[\x21-\x7e]*$")
    """For ``http``; ``/healthz`` if not told."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Another port of the agent than the one for packets; it is spoken to in the same way."""
    interval_s: Annotated[Duration, Field(alias="interval", ge=0.1)] = 5.0
    """Between two checks, a tenth more or less by chance."""
    timeout_s: Annotated[Duration, Field(alias="timeout", gt=0)] = 1.0
    """From connecting to the answer (its status line, for ``http``); none by then is a failed check."""
    unhealthy_threshold: int = Field(default=3, ge=1)
    """So many failed checks in a row: unhealthy."""
    healthy_threshold: int = Field(default=2, ge=1)
    """So many good ones in a row: healthy again."""

    @model_validator(mode="after")
    def _has_a_path_to_ask(self) -> CheckSpec:
        if self.path is not None and self.type is not CheckType.HTTP:
            raise ErrorAt(f"a check of type {self.type.value} asks for no path", "path")
        return self


class HealthSpec(Spec):
    """From observation to an agent's state and share."""

    outlier: OutlierSpec = OutlierSpec()
    reliability: ReliabilitySpec = ReliabilitySpec()
    slow_start: SlowStartSpec = SlowStartSpec()
    check: CheckSpec | None = None
    """For agents without a check of their own; without one, they are not asked."""
