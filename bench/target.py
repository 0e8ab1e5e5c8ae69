"""Where the load generators send requests to, as it stands on their command lines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.call import Connection
from bench.client import connect


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy, or the agents themselves."""

    name: str
    ports: list[int]
    protocol: str
    """``h2`` or ``http/1.1``."""
    connections: int
    certs: str = ""
    """The SVIDs' folder; plaintext without it."""
    pid: int = 0
    """Of the process that is measured, children included; 0 when none is."""

    def argument(self) -> str:
        """As `read` takes it."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, argument: str) -> Target:
        """What `argument` made."""
        return cls(**json.loads(argument))

    async def connect(self) -> list[Connection]:
        """Open its connections.

        Raises:
            ConnectionError: the other side did not agree to the protocol.

        """
        certs = Path(self.certs) if self.certs else None
        return await connect(self.ports, self.protocol, certs, self.connections)
