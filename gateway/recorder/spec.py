"""Where the flight recorder writes, how safely, and for how long it keeps what it has."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.documents import Duration, ErrorAt, Spec


class Fsync(Enum):
    """When the disk is asked to have what was written."""

    ALWAYS = "always"
    """After each write, which is some records."""
    INTERVAL = "interval"
    """Every `syncInterval`."""
    NEVER = "never"
    """When the operating system likes."""


class OnFailure(Enum):
    """What becomes of packets while they cannot be recorded."""

    REFUSE = "refuse"
    """New ones are refused, 503 not-recorded."""
    CONTINUE = "continue"
    """They go on; what cannot be kept is counted, and told in the chain."""


class RecorderSpec(Spec):
    """The flight recorder; see docs/recorder.md."""

    folder: Path
    """Where; a chain for each process in it.  It is made if it is not there."""
    on_failure: OnFailure = OnFailure.REFUSE
    """What becomes of packets while nothing can be written."""
    fsync: Fsync = Fsync.INTERVAL
    """When the disk is asked to have what was written."""
    sync_interval_s: Annotated[Duration, Field(alias="syncInterval", ge=0.05, le=60)] = 1.0
    """How often, with ``fsync: interval``; with any, how often it is written down how far the chain goes."""
    key: Path | None = None
    """A private key, Ed25519 or P-256 in PEM, that signs heads of the chain; without one, none are signed."""
    sign_interval_s: Annotated[Duration, Field(alias="signInterval", ge=1)] = 60.0
    """How often a head is signed, while there are new records."""
    segment_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """Of a file; then another one is begun."""
    segment_age_s: Annotated[Duration, Field(alias="segmentAge", ge=1)] = 3600.0
    """Of a file with records; then another one is begun."""
    max_bytes: int = Field(default=10 * 1024 * 1024 * 1024, ge=1024 * 1024)
    """Of all files of a chain; beyond it the oldest are removed."""
    max_age_s: Annotated[Duration, Field(alias="maxAge", ge=60)] = 720 * 3600.0
    """Of the newest record in a file; then the file is removed."""

    @model_validator(mode="after")
    def _segments_fit(self) -> Self:
        if self.max_bytes < 2 * self.segment_bytes:
            raise ErrorAt("expected two files of segmentBytes or more", "maxBytes")
        return self
