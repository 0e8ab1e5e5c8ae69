"""What a supervisor's admin port needs of whoever has the workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

import httpx

ASK_TIMEOUT_S: Final = 2.0
"""How long a worker has to answer, unless what it is asked for takes longer."""
MAX_ORDERS: Final = 1_000
"""As many members can be overridden."""
OPERATOR: Final = "phoenixflight-operator"
"""The header in which a supervisor tells its workers who it was."""
REPEATED: Final = "?repeated"
"""The query of an order that is given again: it may be for a member that the worker does not know yet."""


class WorkerReply(NamedTuple):
    """A worker, and what it answered."""

    number: int
    pid: int
    """0 while it does not run."""
    restarts: int
    missing_s: float
    """How long it has not been there; 0 while it is."""
    starting: bool
    """It has not been there yet."""
    answer: httpx.Response | None
    """``None`` when there was none."""


class Orders:
    """What operators have ordered of members, for workers that begin anew."""

    def __init__(self) -> None:
        self._all: dict[str, tuple[str, str]] = {}

    def put(self, name: str, operation: str, who: str) -> None:
        """`who` has had `operation` done to `name`."""
        self._all.pop(name, None)
        self._all[name] = operation, who
        if len(self._all) > MAX_ORDERS:
            del self._all[next(iter(self._all))]

    def take_back(self, name: str) -> None:
        """`name` is left to its source again."""
        self._all.pop(name, None)

    def again(self) -> list[tuple[str, dict[str, str]]]:
        """Path and headers of each request that tells a worker."""
        return [
            (f"{operation_path(name, operation)}{REPEATED}", order_headers(who))
            for name, (operation, who) in self._all.items()
        ]


def operation_path(name: str, operation: str) -> str:
    """Where an operation on the member `name` is asked for."""
    return f"/operations/members/{quote(name, safe='')}/{operation}"


def order_headers(who: str) -> dict[str, str]:
    """The header fields of an order that `who` gives."""
    return {"content-type": "application/json", OPERATOR: who}


class Followed(Protocol):
    """A worker."""

    @property
    def number(self) -> int:
        """Which of them it is."""

    def lines(self, path: str) -> AsyncGenerator[str, None]:
        """The lines of what it answers, as they come; ends when it does, or at once when it does not answer."""
        ...


class Workers(Protocol):
    """Whoever has the workers."""

    @property
    def draining(self) -> bool:
        """Whether they have been told to end."""

    @property
    def each(self) -> Sequence[Followed]:
        """All of them."""

    @property
    def orders(self) -> Orders:
        """Given again to workers that begin anew."""

    async def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ASK_TIMEOUT_S,
        content: bytes = b"",
    ) -> list[WorkerReply]:
        """Ask each of them."""
