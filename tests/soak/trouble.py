"""What goes wrong during the soak, by chance and one thing after the other."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from gateway.control.certs_dev import issue_dev_certificates
from tests.conftest import POLICY, TRUST_DOMAIN, RunningGateway, write_agents, write_policy
from tests.fleet import Worker

PAUSE_S = (0.5, 3.0)
DOWN_S = (0.2, 2.0)


class Trouble(threading.Thread):
    """Kills agents and brings them back, rewrites files well and badly, replaces certificates."""

    def __init__(self, gateway: RunningGateway, workers: list[Worker], seed: int) -> None:
        super().__init__(name="trouble", daemon=True)
        self.gateway = gateway
        self.workers = workers
        self.kills: list[tuple[float, float]] = []
        """From when to when an agent was away; seconds since the epoch."""
        self.done: Counter[str] = Counter()
        self.failed: BaseException | None = None
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._number = 0

    def run(self) -> None:
        choices: list[Callable[[], None]] = [
            self._kill, self._kill, self._policies, self._broken_policies, self._members, self._broken_members,
            self._certificates,
        ]  # fmt: skip
        try:
            while not self._over.wait(self._random.uniform(*PAUSE_S)):
                act = self._random.choice(choices)
                self._number += 1
                act()
                self.done[act.__name__.strip("_")] += 1
            self._policies()
            self._members()
        except BaseException as error:
            self.failed = error

    def stop(self) -> None:
        """No more of it; files are left as they should be."""
        self._over.set()
        self.join(30)
        if self.failed is not None:
            raise self.failed

    def _kill(self) -> None:
        worker = self._random.choice(self.workers)
        began = time.time()
        worker.kill()
        self._over.wait(self._random.uniform(*DOWN_S))
        worker.spawn()
        worker.wait()
        self.kills.append((began, time.time()))

    def _policies(self) -> None:
        write_policy(self.gateway.folder, "test", {**POLICY, "metadata": {"name": f"soak-{self._number}"}})

    def _broken_policies(self) -> None:
        write_policy(self.gateway.folder, "test", "apiVersion: phoenixflight.io/v1\nkind: TrustPolicy\nspec: {rules: [")

    def _members(self) -> None:
        write_agents(self.gateway.folder, [each.member | {"labels": {"n": str(self._number)}} for each in self.workers])

    def _broken_members(self) -> None:
        write_agents(self.gateway.folder, [each.member | {"trust": "much"} for each in self.workers])

    def _certificates(self) -> None:
        issue_dev_certificates(self.gateway.certs, trust_domain=TRUST_DOMAIN, svids={}, now=datetime.now(UTC))
