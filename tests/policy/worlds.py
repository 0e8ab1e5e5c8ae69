"""Policies, packets and agents to decide about, by hand and at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from gateway.decision import Evidence, Judgement, Snapshot, judge
from gateway.identity import Principal, SpiffeId
from gateway.messages import RequestHead
from gateway.packet import parse, sift
from gateway.policy import PolicySet
from gateway.policy.model import TrustPolicy
from gateway.routing import Agent

NOON = 1_767_268_800.0
"""2026-01-01T12:00:00Z."""

PLANNER = SpiffeId("spiffe://mesh.local/ns/agents/sa/planner-1")
CODER = SpiffeId("spiffe://mesh.local/ns/agents/sa/coder")
STRANGER = SpiffeId("spiffe://else.example/ns/agents/sa/planner-1")

AGENTS = tuple(
    Agent(name, "127.0.0.1", 80, frozenset(capabilities), trust, tuple(sorted(labels.items())))
    for name, capabilities, trust, labels in (
        ("alpha", {"code.execute", "code.review"}, 0.9, {"tier": "sandbox"}),
        ("beta", {"code.execute", "code.review", "web.fetch"}, 0.6, {"tier": "prod", "zone": "a"}),
        ("gamma", {"code.execute", "web.fetch"}, 0.3, {}),
    )
)

MESH = "spiffe://mesh.local"
ALLOW = {"effect": "allow", "from": [MESH]}
DENY = {"effect": "deny", "from": [MESH]}


def policy(name: str, capabilities: list[str], *rules: dict[str, Any], mode: str = "enforce") -> TrustPolicy:
    """A policy whose rules are called r0, r1 and so on."""
    named = [{"name": f"r{at}", **rule} for at, rule in enumerate(rules)]
    return TrustPolicy.model_validate(
        {"metadata": {"name": name}, "spec": {"mode": mode, "capabilities": capabilities, "rules": named}}
    )


def snapshot(*policies: TrustPolicy, agents: Sequence[Agent] = AGENTS) -> Snapshot:
    """What is in force."""
    return Snapshot("r1", PolicySet(policies), tuple(agents))


@dataclass(frozen=True)
class Ask:
    """A packet, its sender and what is proven about it."""

    capabilities: tuple[str, ...] = ("code.execute",)
    caller: SpiffeId = PLANNER
    hops: int | None = None
    task: str = ""
    method: str = "POST"
    path: str = "/run"
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def head(self) -> RequestHead:
        """The request."""
        fields = [(b"flight-capability", ", ".join(self.capabilities).encode())]
        if self.hops is not None:
            fields.append((b"flight-budget", b"hops=%d" % self.hops))
        if self.task:
            fields.append((b"flight-task", b'"%s"' % self.task.encode()))
        return RequestHead(self.method.encode(), b"https", b"gateway", self.path.encode(), fields)


def judged(ask: Ask, force: Snapshot, now: float = NOON) -> Judgement:
    """What becomes of `ask`."""
    head = ask.head
    packet = parse(head, sift(head.fields).flight, lambda: "id-1")
    return judge(packet, head, Principal(ask.caller), ask.evidence, force, now)


# At random.  Each pattern and condition stands beside what it means, for a reference to read.

CALLERS: dict[str, Callable[[str], bool]] = {
    MESH: lambda caller: caller.startswith("spiffe://mesh.local/"),
    CODER: lambda caller: caller == CODER,
    "spiffe://mesh.local/ns/*/sa/planner-*": lambda caller: "mesh.local" in caller and "/sa/planner-" in caller,
    "spiffe://mesh.local/ns/other/**": lambda caller: "mesh.local/ns/other/" in caller,
    "spiffe://else.example/**": lambda caller: "else.example" in caller,
}
CAPABILITIES: dict[str, Callable[[str], bool]] = {
    "*": lambda name: True,
    "code.*": lambda name: name.startswith("code."),
    "*.fetch": lambda name: name.endswith(".fetch"),
    "code.execute": lambda name: name == "code.execute",
}
WHENS: dict[str, Callable[[Ask], bool | None]] = {
    "packet.hops < 4": lambda ask: (8 if ask.hops is None else ask.hops) < 4,
    "packet.task == 't'": lambda ask: ask.task == "t",
    "packet.signed && request.method == 'POST'": lambda ask: bool(ask.evidence.signer) and ask.method == "POST",
    "principal.serviceAccount.startsWith('planner')": lambda ask: "/sa/planner" in ask.caller,
    "packet.budget.hops > 2": lambda ask: None if ask.hops is None else ask.hops > 2,  # None: it fails
}
AGENT_WHENS: dict[str, Callable[[Agent], bool | None]] = {
    "agent.trust > 0.5": lambda agent: agent.trust > 0.5,
    "agent.labels.tier == 'prod'": lambda agent: dict(agent.labels)["tier"] == "prod" if agent.labels else None,
}


# Drawn so that rules often meet packets, and no single one decides everything.
_callers = st.sampled_from([[MESH]] * 3 + [[each] for each in sorted(CALLERS)] + [[CODER, "spiffe://else.example/**"]])
_capabilities = st.sampled_from([["*"]] * 2 + [[each] for each in sorted(CAPABILITIES)] + [["*.fetch", "code.*"]])
_tos = st.sampled_from([{"minTrust": 0.5}, {"labels": {"tier": "sandbox"}}, {"minTrust": 0.2, "labels": {"zone": "a"}}])
_whens = st.sampled_from(sorted(WHENS))
_agent_whens = st.sampled_from(sorted(AGENT_WHENS))
_requires = st.sampled_from(
    [
        {"signature": True},
        {"contentDigest": True},
        {"signature": True, "contentDigest": True},
        {"signature": True, "signers": ["spiffe://mesh.local/ns/agents/sa/cod*"]},
    ]
)


def _rules(effect: str, **terms: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"effect": st.just(effect), "from": _callers, **terms})


denies = st.one_of(
    _rules("deny"),
    _rules("deny", when=_whens),
    _rules("deny", to=_tos),
    _rules("deny", agentWhen=_agent_whens),
    _rules("deny", when=_whens, to=_tos),
)
_conditional_denies = st.one_of(_rules("deny", when=_whens), _rules("deny", agentWhen=_agent_whens, when=_whens))
allows = st.one_of(
    _rules("allow"),
    _rules("allow", when=_whens),
    _rules("allow", agentWhen=_agent_whens),
    _rules("allow", require=_requires),
    _rules("allow", when=_whens, to=_tos, require=_requires),
)
rules = st.one_of(allows, allows, allows, denies, _conditional_denies)
_modes = st.sampled_from(["enforce", "enforce", "shadow"])
documents = st.lists(
    st.tuples(_capabilities, st.lists(rules, min_size=1, max_size=2), _modes), min_size=1, max_size=4
).map(lambda drawn: [policy(f"p{at}", names, *each, mode=mode) for at, (names, each, mode) in enumerate(drawn)])

evidence = st.builds(
    Evidence,
    signer=st.sampled_from([None, PLANNER, CODER]),
    covered=st.sampled_from([frozenset(), frozenset({b"content-digest"})]),
    digest=st.booleans(),
)
asks = st.builds(
    Ask,
    capabilities=st.lists(
        st.sampled_from(["code.execute", "code.review", "web.fetch"]), min_size=1, max_size=2, unique=True
    ).map(tuple),
    caller=st.sampled_from([PLANNER, PLANNER, CODER, STRANGER]),
    hops=st.sampled_from([None, 1, 3, 5]),
    task=st.sampled_from(["", "t"]),
    method=st.sampled_from(["GET", "POST"]),
    evidence=evidence,
)
