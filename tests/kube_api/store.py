"""Objects with resource versions, their history, and consistent pages of them.  Pure."""

from __future__ import annotations

import copy
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

KINDS = {
    "services": ("v1", "Service"),
    "endpoints": ("v1", "Endpoints"),
    "endpointslices": ("discovery.k8s.io/v1", "EndpointSlice"),
}
KEPT_PAGES = 64


class GoneError(Exception):
    """What was asked for is older than what is kept."""


@dataclass(frozen=True)
class Change:
    """One write."""

    version: int
    plural: str
    before: Object | None
    after: Object | None
    """Of a deletion, the last state, with the version of the deletion."""
    deleted: bool = False


def selects(selector: str, found: Object | None) -> bool:
    """Whether `found` is there and has the labels: ``a=b``, ``a!=b``, ``a`` and ``!a``, with commas between."""
    if found is None:
        return False
    labels = found["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        name, sign, value = re.fullmatch(r"(!?[^=!]+)(?:(!=|==?)(.*))?", part).groups()
        if sign is None:
            met = (name[1:] not in labels) if name.startswith("!") else name in labels
        else:
            met = (labels.get(name) == value) == (sign != "!=")
        if not met:
            return False
    return True


class Store:
    """All objects; `kept` writes can be watched from."""

    def __init__(self, kept: int = 10_000) -> None:
        self.version = 1000
        self.forgotten = 1000
        """The newest version from which a watch no longer can begin, less one."""
        self.history: deque[Change] = deque()
        self._kept = kept
        self._objects: dict[str, dict[tuple[str, str], Object]] = {plural: {} for plural in KINDS}
        self._pages: dict[str, tuple[int, list[Object]]] = {}

    def put(self, plural: str, written: Object) -> int:
        """Create or replace an object; its new resource version."""
        metadata = written["metadata"]
        key = metadata["namespace"], metadata["name"]
        before = self._objects[plural].get(key)
        self.version += 1
        after = copy.deepcopy(written)
        after["apiVersion"], after["kind"] = KINDS[plural]
        after["metadata"].setdefault("uid", f"{plural}-{key[0]}-{key[1]}")
        after["metadata"]["resourceVersion"] = str(self.version)
        self._objects[plural][key] = after
        self._note(Change(self.version, plural, before, after))
        return self.version

    def delete(self, plural: str, namespace: str, name: str) -> int:
        """Delete an object; the version at which it was gone."""
        before = self._objects[plural].pop((namespace, name))
        self.version += 1
        last = copy.deepcopy(before)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._note(Change(self.version, plural, before, last, deleted=True))
        return self.version

    def get(self, plural: str, namespace: str, name: str) -> Object:
        return copy.deepcopy(self._objects[plural][namespace, name])

    def all(self, plural: str) -> list[Object]:
        return list(self._objects[plural].values())

    def _note(self, change: Change) -> None:
        self.history.append(change)
        while len(self.history) > self._kept:
            self.forgotten = self.history.popleft().version

    def compact(self) -> None:
        """Forget all history and all pages that somebody may be reading."""
        self.history.clear()
        self.forgotten = self.version
        self._pages.clear()

    def page(self, plural: str, namespace: str, selector: str, limit: int, token: str) -> tuple[int, list[Object], str]:
        """The version, objects and ``continue`` of one page of a list.

        Raises:
            GoneError: `token` is too old.

        """
        if token:
            if token not in self._pages:
                raise GoneError(token)
            version, rest = self._pages[token]
        else:
            found = self._objects[plural]
            version = self.version
            rest = [found[key] for key in sorted(found) if namespace in ("", key[0]) and selects(selector, found[key])]
        if not limit or len(rest) <= limit:
            return version, rest, ""
        more = f"{version}.{plural}.{len(rest) - limit}.{self.version}.{len(self._pages)}"
        self._pages[more] = version, rest[limit:]
        while len(self._pages) > KEPT_PAGES:
            del self._pages[next(iter(self._pages))]
        return version, rest[:limit], more

    def since(self, version: int, plural: str, namespace: str, selector: str) -> tuple[int, list[tuple[str, Object]]]:
        """The version now, and what a watcher sees of what happened after `version`.

        Raises:
            GoneError: that is no longer known.

        """
        if version < self.forgotten:
            raise GoneError(str(version))
        events = []
        for change in reversed(self.history):
            if change.version <= version:
                break
            event = _event(change, namespace, selector) if change.plural == plural else None
            if event is not None:
                events.append(event)
        return self.version, events[::-1]


def _event(change: Change, namespace: str, selector: str) -> tuple[str, Object] | None:
    if namespace not in ("", change.after["metadata"]["namespace"]):
        return None
    was = selects(selector, change.before)
    now = not change.deleted and selects(selector, change.after)
    if now:
        return ("MODIFIED" if was else "ADDED"), change.after
    if was:
        # The last state that was selected, at the version of the write (cacher's behaviour).
        last = copy.deepcopy(change.before)
        last["metadata"]["resourceVersion"] = str(change.version)
        return "DELETED", last
    return None
