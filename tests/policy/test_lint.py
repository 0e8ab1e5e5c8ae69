"""Warnings about policies that are valid, but hardly meant."""

from __future__ import annotations

import pytest

from gateway.documents import parse
from gateway.membership.file import load_agents
from gateway.policy.lint import lint
from gateway.policy.load import load_documents

MEMBERS = """\
apiVersion: phoenixflight.io/v1
kind: AgentList
metadata: {name: local}
spec:
  agents:
    - {name: executor, address: "127.0.0.1:1", capabilities: [code.execute], trust: 0.9, labels: {tier: sandbox}}
    - {name: reviewer, address: "127.0.0.1:2", capabilities: [code.review], trust: 0.5}
"""

HEAD = """\
apiVersion: phoenixflight.io/v1
kind: TrustPolicy
metadata: {name: %s}
spec:
  capabilities: [%s]
  rules:
"""

EVERYBODY = HEAD % ("base", '"code.*"') + "    - {name: all, effect: allow, from: ['spiffe://mesh.local/**']}\n"


def warnings(*documents: str, members: str = MEMBERS) -> list[str]:
    sources = {f"{number}.yaml": text for number, text in enumerate(documents)}
    agents = load_agents(members, "agents.yaml")
    return [str(each) for each in lint(load_documents(sources), agents, parse(members, "agents.yaml")[0])]


def policy(name: str, *rules: str, capabilities: str = '"code.*"') -> str:
    return HEAD % (name, capabilities) + "".join(f"    - {{{rule}}}\n" for rule in rules)


def test_policies_that_mean_what_they_say_have_no_warnings() -> None:
    assert warnings(EVERYBODY) == []
    assert warnings(EVERYBODY, policy("d", "name: d, effect: deny, from: ['spiffe://mesh.local/x/**']")) == []


@pytest.mark.parametrize(
    ("capabilities", "caller"),
    [
        ('"*"', "spiffe://mesh.local"),
        ('"code.*"', "spiffe://mesh.local/**"),
        ('"*.execute", "code.e*"', "spiffe://mesh.local/ns/*"),
    ],
)
def test_an_allow_of_which_a_deny_leaves_nothing(capabilities: str, caller: str) -> None:
    allow = policy("p", "name: dead, effect: allow, from: ['spiffe://mesh.local/ns/x']", capabilities='"code.execute"')
    deny = policy("d", f"name: wide, effect: deny, from: ['{caller}']", capabilities=capabilities)
    elsewhere = EVERYBODY.replace("mesh.local", "else.example")
    told = "'dead' can never allow: d/wide (2.yaml:7) denies all that it covers; narrow that, or remove this"
    assert warnings(elsewhere, allow, deny) == [f"1.yaml:7:7: {told}"]


def test_an_allow_whose_callers_are_denied_one_by_one() -> None:
    allow = policy("p", "name: dead, effect: allow, from: ['spiffe://a/x', 'spiffe://a/y']")
    x, y = (f"name: {name}, effect: deny, from: ['spiffe://a/{name}']" for name in "xy")
    assert len(warnings(EVERYBODY, allow, policy("d", x, y))) == 1
    assert warnings(EVERYBODY, allow, policy("d", x)) == []


@pytest.mark.parametrize(
    "deny",
    [
        "name: d, effect: deny, from: ['spiffe://mesh.local/**'], when: \"packet.task == ''\"",
        "name: d, effect: deny, from: ['spiffe://mesh.local/**'], to: {minTrust: 0.9}",
        "name: d, effect: deny, from: ['spiffe://mesh.local/**'], agentWhen: 'agent.trust > 0.5'",
        "name: d, effect: deny, from: ['spiffe://mesh.local/*']",
    ],
)
def test_a_deny_that_may_leave_something_is_no_warning(deny: str) -> None:
    assert warnings(EVERYBODY, policy("d", deny)) == []


def test_a_deny_in_shadow_denies_nothing_yet() -> None:
    deny = policy("d", "name: d, effect: deny, from: ['spiffe://mesh.local/**']")
    assert warnings(EVERYBODY, deny.replace("spec:", "spec:\n  mode: shadow")) == []
    assert warnings(EVERYBODY, deny) != []


def test_two_rules_that_say_the_same() -> None:
    one = "name: one, effect: allow, from: ['spiffe://a/x', 'spiffe://a/y'], when: 'packet.hops > 0'"
    two = "name: two, effect: allow, when: 'packet.hops > 0', from: ['spiffe://a/y', 'spiffe://a/x']"
    told = "1.yaml:8:7: 'two' says again what p/one (1.yaml:7) says; remove one"
    assert warnings(EVERYBODY, policy("p", one, two)) == [told]
    assert warnings(EVERYBODY, policy("p", one, two.replace("> 0", "> 1"))) == []
    assert warnings(EVERYBODY, policy("p", one), policy("q", two, capabilities='"code.review"')) == []


def test_a_capability_that_nobody_offers() -> None:
    rule = "name: r, effect: allow, from: ['spiffe://a']"
    told = "1.yaml:5:28: no agent offers anything that 'web.*' covers; check the spelling, or remove it"
    assert warnings(EVERYBODY, policy("p", rule, capabilities='"code.*", "web.*"')) == [told]
    assert warnings(EVERYBODY, policy("p", rule.replace("allow", "deny"), capabilities='"web.*"')) == []


def test_a_narrowing_that_fits_no_agent() -> None:
    rule = "name: r, effect: allow, from: ['spiffe://a'], to: {minTrust: 0.8}"
    told = "1.yaml:7:58: no agent that offers these capabilities fits 'to' of 'r'; check trust and labels"
    assert warnings(EVERYBODY, policy("p", rule, capabilities='"code.review"')) == [told]
    assert warnings(EVERYBODY, policy("p", rule)) == []


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("false", "'when' of 'r' is always false"),
        ("1 > 2", "'when' of 'r' is always false"),
        ("1 / 0 == 1", "'when' of 'r' can never be evaluated"),
    ],
)
def test_a_condition_that_never_holds(when: str, told: str) -> None:
    (warning,) = warnings(EVERYBODY, policy("p", f"name: r, effect: allow, from: ['spiffe://a'], when: '{when}'"))
    assert warning.startswith(f"1.yaml:7:60: {told}")


def test_an_agent_that_nobody_may_reach() -> None:
    allow = policy("p", "name: r, effect: allow, from: ['spiffe://a']", capabilities='"code.execute"')
    told = "agents.yaml:7:14: no rule allows anybody to reach 'reviewer'; add one, or remove the agent"
    assert warnings(allow) == [told]
    shadow = EVERYBODY.replace("spec:", "spec:\n  mode: shadow")
    assert warnings(allow, shadow) == [told]


def test_what_an_agent_card_may_offer_is_no_warning() -> None:
    members = MEMBERS.replace("capabilities: [code.execute]", "agentCard: true")
    assert members != MEMBERS
    pay = policy("p", "name: r, effect: allow, from: ['spiffe://else']", capabilities='"pay"')
    assert warnings(EVERYBODY, pay, members=members) == []


def test_an_allow_of_which_an_ask_leaves_nothing() -> None:
    allow = policy("p", "name: dead, effect: allow, from: ['spiffe://mesh.local/ns/x']")
    wide = "name: wide, effect: ask, from: ['spiffe://mesh.local/**']"
    (told,) = warnings(allow, policy("q", wide))
    assert told == (
        "0.yaml:7:7: 'dead' never allows: q/wide (1.yaml:7) asks about all that it covers; narrow that, or remove this"
    )
    assert warnings(allow, policy("q", f"{wide}, to: {{minTrust: 0.6}}"), EVERYBODY) == []
