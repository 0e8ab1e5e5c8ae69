"""Principals by group: what may be a label, where thousands of ids may not."""

from __future__ import annotations

from enum import Enum
from itertools import pairwise

from gateway.telemetry.families import OTHER

MAX_KNOWN = 10_000
"""Ids whose groups are remembered; beyond them, it begins anew."""


class PrincipalGroup(Enum):
    """What of a SPIFFE id is a principal's group."""

    NAMESPACE = "namespace"
    """What follows ``/ns/``."""
    SERVICE_ACCOUNT = "service-account"
    """What follows ``/sa/``."""
    TRUST_DOMAIN = "trust-domain"
    NONE = "none"
    """All are of one group, without a name."""


class Principals:
    """The groups of principals."""

    def __init__(self, group: PrincipalGroup) -> None:
        self._group = group
        self._known: dict[str, str] = {}

    def of(self, spiffe_id: str) -> str:
        """The group of `spiffe_id`: empty without an id, ``other`` when the id has no such part."""
        found = self._known.get(spiffe_id)
        if found is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = self._known[spiffe_id] = self._read(spiffe_id)
        return found

    def _read(self, spiffe_id: str) -> str:
        if not spiffe_id or self._group is PrincipalGroup.NONE:
            return ""
        _, _, domain, *path = spiffe_id.split("/")
        if self._group is PrincipalGroup.TRUST_DOMAIN:
            return domain
        before = "ns" if self._group is PrincipalGroup.NAMESPACE else "sa"
        return next((after for name, after in pairwise(path) if name == before), OTHER)
