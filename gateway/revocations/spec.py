"""Where revocations are read, and kept."""

from __future__ import annotations

from pathlib import Path

from gateway.documents import Spec


class RevocationSpec(Spec):
    """Revocations; without any of it, operators' orders hold until the gateway ends, or are shared in spec.redis."""

    path: Path | None = None
    """A file or folder with documents of the kind Revocations, watched as policies are."""
    keep: Path | None = None
    """A file in which the gateway keeps what operators have ordered, over a restart."""
