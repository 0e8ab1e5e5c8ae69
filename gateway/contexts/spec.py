"""Where contexts are kept, for how long, and how much of whom."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.documents import Duration, ErrorAt, Spec

MAX_INLINE_BYTES = 32 * 1024


class Kind(Enum):
    """What keeps the bytes."""

    DISK = "disk"
    REDIS = "redis"
    S3 = "s3"


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("expected http://HOST:PORT or https://HOST, without a path")
    return text.rstrip("/")


class S3Spec(Spec):
    """A bucket of an S3-compatible service, addressed by path."""

    endpoint: Annotated[str, AfterValidator(_endpoint)]
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    region: str = Field(default="us-east-1", min_length=1)
    prefix: str = Field(default="phoenixflight/", pattern=r"^([A-Za-z0-9._-]+/)*$")
    """What the keys of all objects begin with."""
    credentials: Path
    """A file in the format of AWS's shared credentials; its profile ``default`` is read for each request."""


class ContextSpec(Spec):
    """The store of contexts; see docs/contexts.md."""

    store: Kind = Kind.DISK
    """What keeps the bytes: a folder, the Redis of `spec.redis`, or a bucket."""
    folder: Path | None = None
    """For ``store: disk``.  It is made if it is not there."""
    s3: S3Spec | None = None
    """For ``store: s3``."""
    keys: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Key files: the first one encrypts, all of them decrypt."""
    max_size: int = Field(default=8 * 1024 * 1024, ge=1, le=64 * 1024 * 1024)
    """Bytes of a context; beyond it 413 context-too-large."""
    max_age_s: Annotated[Duration, Field(alias="maxAge", gt=0)] = 24 * 3600.0
    """Since it was last stored; then it is gone."""
    max_bytes: int = Field(default=256 * 1024 * 1024, ge=1)
    """Of all contexts that a principal has stored; beyond it 429 context-quota."""
    max_count: int = Field(default=1000, ge=1, le=10_000)
    """Likewise how many."""
    max_held: int = Field(default=64 * 1024 * 1024, ge=1)
    """Bytes that are on their way in and out at a time; beyond it 503 overloaded."""
    max_inline: int = Field(default=8192, ge=1, le=MAX_INLINE_BYTES)
    """Bytes of a context that goes with a packet; beyond it 413 context-too-large."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if (self.store is Kind.DISK) != (self.folder is not None):
            raise ErrorAt("store: disk takes a folder, and nothing else does", "folder")
        if (self.store is Kind.S3) != (self.s3 is not None):
            raise ErrorAt("store: s3 takes s3 (endpoint, bucket, credentials), and nothing else does", "s3")
        if self.max_held < self.max_size:
            raise ErrorAt("one context of maxSize must fit; expected maxSize or more", "maxHeld")
        return self
