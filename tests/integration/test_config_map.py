"""Policies in a ConfigMap are replaced under traffic."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.documents import MAX_TEXT_BYTES
from tests.conformance.test_http1 import answer_each
from tests.conftest import ConfigMap, RunningGateway, StartGateway, eventually, member

SWAPS = int(os.environ.get("CONFIG_MAP_SWAPS", "200"))
RATE = 300
CALLERS = 4
CAPABILITIES = ("code.execute", "code.review")
DECISION = re.compile(r'allow;policy="(?P<policy>[^"]+)";revision="(?P<revision>[^"]+)"')
BROKEN = (
    "kind: [",
    "apiVersion: phoenixflight.io/v1\nkind: TrustPolicy\nmetadata: {name: x}\nspec: {rule: []}\n",
    "x" * (MAX_TEXT_BYTES + 1),
    "a: &a [x]\nb: [" + "*a, " * 100 + "*a]\n",
)


def policy(name: str, capability: str, rules: list[dict[str, Any]] | None = None) -> str:
    rules = rules or [{"name": name, "effect": "allow", "from": ["spiffe://mesh.local/ns/agents/**"]}]
    return yaml.safe_dump(
        {
            "apiVersion": "phoenixflight.io/v1",
            "kind": "TrustPolicy",
            "metadata": {"name": name},
            "spec": {"capabilities": [capability], "rules": rules},
        }
    )


def good(number: int) -> dict[str, str]:
    """A set with a policy for each capability; the number is in the names of all, and of the files."""
    names = {capability: f"{capability}-{number}" for capability in CAPABILITIES}
    return {f"{name}.yaml": policy(name, capability) for capability, name in names.items()}


def number_of(policy_name: str) -> int:
    return int(policy_name.rpartition("-")[2])


class Traffic:
    """Callers at a steady rate, with HTTP/2 and HTTP/1.1; what each answer said of the decision behind it."""

    def __init__(self, gateway: RunningGateway, rate: int) -> None:
        self.answers: Counter[tuple[str, int, str]] = Counter()
        """By capability, the number in the policy's name, and revision."""
        self.failures: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._gateway = gateway
        self._pause_s = CALLERS / rate
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(turn,)) for turn in range(CALLERS)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, turn: int) -> None:
        with self._gateway.client(http2=turn % 2 == 0) as client:
            due = time.monotonic()
            while not self._stop.is_set():
                due += self._pause_s
                self._stop.wait(due - time.monotonic())
                turn += 1
                asked = (CAPABILITIES[0], CAPABILITIES[1], ", ".join(CAPABILITIES))[turn % 3]
                try:
                    answer = client.post("/run", headers={"flight-capability": asked})
                except httpx.HTTPError as error:
                    self.failures[repr(error)] += 1
                    continue
                said = DECISION.fullmatch(answer.headers.get("flight-decision", ""))
                if answer.status_code != 200 or said is None:
                    self.failures[answer.text] += 1
                    continue
                self.slowest_s = max(self.slowest_s, answer.elapsed.total_seconds())
                self.answers[asked.partition(",")[0], number_of(said["policy"]), said["revision"]] += 1


@pytest.fixture
def policies(tmp_path: Path) -> ConfigMap:
    return ConfigMap(tmp_path / "policies", good(0))


@pytest.fixture
def gateway(raw_agent, start_gateway: StartGateway, policies: ConfigMap) -> RunningGateway:
    agent = member(raw_agent(answer_each).port, capabilities=list(CAPABILITIES))
    return start_gateway([agent], policies=str(policies.folder))


@pytest.mark.slow
def test_sets_swapped_under_traffic_decide_one_at_a_time_and_fail_nobody(
    gateway: RunningGateway, policies: ConfigMap
) -> None:
    def status() -> dict[str, Any]:
        assert gateway.admin("/readyz").status_code == 200
        return dict(gateway.admin("/status").json())

    last_good = str(status()["revision"])
    numbers = {last_good: 0}
    with Traffic(gateway, RATE) as traffic:
        for number in range(1, SWAPS + 1):
            if number % 5:
                policies.swap(good(number))
                first = str(policies.folder / f"{CAPABILITIES[0]}-{number}.yaml")
                told = eventually(lambda first=first: (told := status())["files"][0] == first and told)
                assert told["in_step_with_files"]
                last_good = told["revision"]
                numbers[last_good] = number
            else:
                broken = f"broken-{number}.yaml"
                policies.swap({**good(number), broken: BROKEN[number // 5 % len(BROKEN)]})
                told = eventually(
                    lambda broken=broken: (
                        (told := status())["last_refused"] and broken in told["last_refused"]["problems"][0] and told
                    )
                )
                assert not told["in_step_with_files"]
                assert told["revision"] == last_good
    assert not traffic.failures
    for _, number, revision in traffic.answers:
        assert numbers[revision] == number
    assert {capability for capability, _, _ in traffic.answers} == set(CAPABILITIES)
    assert len({revision for _, _, revision in traffic.answers}) > len(numbers) * 0.9
    history = status()["history"]
    assert len(history) == 50
    assert sum("problems" in event for event in history) == 10


@pytest.mark.slow
def test_requests_go_on_while_two_thousand_rules_are_read(gateway: RunningGateway, policies: ConfigMap) -> None:
    rules = [
        {
            "name": f"rule-{number}",
            "effect": "allow",
            "from": [f"spiffe://mesh.local/ns/team-{number}/**"],
            "when": f"packet.hops < {number + 2}",
        }
        for number in range(100)
    ]
    many = {f"many-{number}.yaml": policy(f"many-{number}", f"many.n{number}.*", rules) for number in range(20)}
    with Traffic(gateway, RATE) as traffic:
        for number in range(1, 4):
            before = gateway.revision()
            policies.swap(good(number) | many)
            eventually(lambda before=before: gateway.revision() != before)
    assert not traffic.failures
    # Reading them takes half a second.  The gateway keeps a request waiting for some 10 ms; this process adds its own.
    assert traffic.slowest_s < 0.15
