"""A gateway whose admin port knows operators, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.admin.operators import ok, operator, with_token
from tests.conftest import RawAgent, RunningGateway, launch, member


@pytest.fixture(scope="module")
def running(certs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Two agents, one of them with a capability of its own."""
    folder = tmp_path_factory.mktemp("operated")
    agent = RawAgent(ok)
    members = [
        member(agent.port, zone="a"),
        member(agent.port, "reviewer-1", capabilities=["code.execute", "code.review"], trust=0.5),
    ]
    gateway = launch(folder, certs, members, admin_spec=with_token(folder))
    yield gateway
    gateway.stop()
    agent.close()


@pytest.fixture
def admin(running: RunningGateway) -> Iterator[httpx.Client]:
    """An operator."""
    with operator(running) as client:
        yield client
