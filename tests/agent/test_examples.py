"""What docs/agents.md shows runs as it stands."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.membership.registration import read_body
from gateway.policy.load import load_all
from gateway.policy.membership import MembershipPolicySet
from tests.membership.registering import registering

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()


def shown(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@contextmanager
def gateway_elsewhere(certs: Path) -> Iterator[int]:
    """A data plane in a thread, with the policy of the page; gives its port."""
    policies = MembershipPolicySet(load_all({"page": shown("yaml")[0]}).membership)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    ports: list[int] = []
    started = threading.Event()

    async def serve() -> None:
        async with registering(certs) as running:
            running.policies = policies
            ports.append(running.listener.port)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_the_examples_run_one_after_the_other(certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "certs").symlink_to(certs)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "examples"}
    with gateway_elsewhere(certs) as port:
        for code in shown("python"):
            exec(compile(code.replace("127.0.0.1:8443", f"127.0.0.1:{port}"), "agents.md", "exec"), names)
    assert names["result"]["for"] == "spiffe://mesh.local/ns/agents/sa/planner"
    assert names["result"]["answer"] == 42
    assert names["member"]["name"] == "planner-1"
    assert (names["member"]["state"], names["member"]["trust"]) == ("ready", 0.8)
    names["client"].close()


def test_the_example_of_a_registration_is_valid_and_shows_every_field() -> None:
    (body,) = shown("json")
    assert {field.alias or name for name, field in type(read_body(body.encode())).model_fields.items()} == set(
        json.loads(body)
    )


def test_the_example_of_a_membership_policy_shows_every_field() -> None:
    (policy,) = load_all({"page": shown("yaml")[0]}).membership
    (rule,) = policy.spec.rules
    assert rule.model_fields_set == set(type(rule).model_fields)
