"""However work is handed on, whoever gets it may do no more with it than whoever had it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import OKPKey

from gateway.authority import Authority, AuthoritySpec, Credential, KeyRing, load_key_ring
from gateway.identity import Principal, SpiffeId
from gateway.packet import Capabilities, FlightPacket
from gateway.policy.model import Grant

NOW = 1_800_000_000.0
PEOPLE = [Principal(SpiffeId(f"spiffe://mesh.local/ns/agents/sa/{name}"), None, name.encode()) for name in "abcdef"]
PATTERNS = ["*", "a*", "a.*", "*.b", "a.b", "a.b.*", "c", "c.*"]
NAMES = ["a", "a.b", "a.b.c", "c", "c.b", "x"]

budgets = st.dictionaries(st.sampled_from(["tokens", "cost", "hops"]), st.integers(0, 9), max_size=3)
grants = st.builds(
    lambda capabilities, budget, ttl: Grant(capabilities=capabilities, budget=budget, ttl=f"{ttl}s"),
    st.lists(st.sampled_from(PATTERNS), max_size=4),
    budgets,
    st.integers(1, 300),
)
hops = st.tuples(budgets, st.lists(grants, min_size=1, max_size=2), st.sampled_from(PEOPLE), st.floats(0, 5))
RING: KeyRing = load_key_ring([("test", OKPKey.generate_key("Ed25519").as_pem(private=True).decode())])


def may(held: Credential, name: str) -> bool:
    return any(pattern.matches(name) for pattern in held.capabilities)


@settings(max_examples=100, deadline=None)
@given(st.lists(hops, min_size=1, max_size=6))
def test_handing_on_never_widens(way: list[tuple[dict[str, int], list[Grant], Principal, float]]) -> None:
    authority, replica = (
        Authority(RING, AuthoritySpec.model_validate({"keys": ["test"], "maxTtl": "200s"})) for _ in range(2)
    )
    now, caller = NOW, PEOPLE[0]
    held: Credential | None = None
    for number, (budget, granted, agent, passed) in enumerate(way):
        packet = FlightPacket(f"p{number}", Capabilities(("a",)), b"p", budget=budget)
        terms = authority.narrow(held, packet, caller.id, granted, now)
        if terms.budget["hops"] < 0 or terms.expires < now + 1:
            return
        token = authority.mint(terms, now, jti=f"j{number}", audience=agent.id, thumbprint=agent.thumbprint)
        given_now = replica.verify(token, agent, now)
        assert given_now == authority.verify(token, agent, now)  # which takes its own word for it
        assert given_now.expires <= now + min(200, *(each.ttl_s for each in granted))
        for name in NAMES:
            covered = all(any(one.matches(name) for one in grant.capabilities) for grant in granted)
            assert covered or not may(given_now, name)
            assert held is None or may(held, name) or not may(given_now, name)
        for bound in (budget, *(grant.budget for grant in granted), *([held.budget] if held else [])):
            assert all(given_now.budget[unit] <= amount for unit, amount in bound.items())
        if held is not None:
            assert given_now.expires <= held.expires
            assert given_now.budget["hops"] < held.budget["hops"]
            assert (given_now.root, given_now.subject) == (held.root, held.subject)
            assert given_now.lineage == (*held.lineage, caller.id)
            assert given_now.parent == held.id
        else:
            assert (given_now.root, given_now.lineage) == (packet.id, (caller.id,))
        held, caller, now = given_now, agent, now + passed
        if now >= held.expires:
            return
