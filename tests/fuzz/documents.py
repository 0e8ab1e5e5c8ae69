"""Documents that people write: policies and members."""

from __future__ import annotations

from gateway.documents import Document, DocumentError
from gateway.membership.file import load_listed
from gateway.policy import PolicySet
from gateway.policy.lint import lint
from gateway.policy.load import load_all
from gateway.refusal import Refusal
from gateway.routes import Route
from gateway.snapshot import Snapshot
from tests.policy.worlds import AGENTS, ALLOW, CODER, Ask, judged, policy, snapshot

_ASKS = (Ask(), Ask(("code.review", "web.fetch"), CODER, hops=9, task="t", method="GET"))
_FREE = policy("free", ["*"], ALLOW)
_MEMBERS = Document("agents.yaml", {"spec": {"agents": [{"name": agent.name} for agent in AGENTS]}}, {})


def check_policies(data: bytes) -> None:
    """Policies that are accepted compile, and decide."""
    try:
        loaded = load_all({"fuzz.yaml": data.decode(errors="replace")})
    except DocumentError as error:
        _tells(error)
        return
    policies = [each.policy for each in loaded.trust]
    force = snapshot(*policies)
    for ask in _ASKS:
        assert isinstance(judged(ask, force).route, Route | Refusal)
    for problem in lint(loaded.trust, AGENTS, _MEMBERS):
        assert problem.message


def check_members(data: bytes) -> None:
    """Members that are accepted form rings that anybody can be on."""
    try:
        listed = load_listed(data.decode(errors="replace"), "fuzz.yaml")
    except DocumentError as error:
        _tells(error)
        return
    force = Snapshot("r1", PolicySet([_FREE]), listed.agents)
    for agent in listed.agents:
        assert 0 < agent.port < 65536
        for capability in agent.capabilities:
            route = judged(Ask((capability,)), force).route
            assert isinstance(route, Route | Refusal)


def _tells(error: DocumentError) -> None:
    assert error.problems
    for problem in error.problems:
        assert problem.line > 0
        assert problem.column > 0
        assert problem.message
