"""Who may register which agents."""

from __future__ import annotations

import ipaddress
import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.documents import DocumentError
from gateway.identity import Principal, SpiffeId
from gateway.policy.load import load_all, load_policies
from gateway.policy.membership import Admitting, Application, MembershipPolicySet
from gateway.refusal import Reason, Refusal

CODER = Principal(SpiffeId("spiffe://mesh.local/ns/agents/sa/coder"))
POLICY = """\
apiVersion: phoenixflight.io/v1
kind: MembershipPolicy
metadata: {name: agents}
spec:
  rules:
    - name: coders
      from: ["spiffe://mesh.local/ns/agents/sa/coder"]
      names: ["coder-*"]
      capabilities: ["code.*", lang.python]
      addresses: [10.0.0.0/8, "fd00::/8", "*.agents.local"]
      maxTrust: 0.9
      labels: {tier: sandbox}
      maxLease: 1m
"""
TRUST = """\
apiVersion: phoenixflight.io/v1
kind: TrustPolicy
metadata: {name: agents}
spec:
  capabilities: ["*"]
  rules: [{name: all, effect: allow, from: ["spiffe://mesh.local"]}]
"""


def compiled(*texts: str) -> MembershipPolicySet:
    return MembershipPolicySet(load_all({f"{number}.yaml": text for number, text in enumerate(texts)}).membership)


def asked(**changes: Any) -> Application:
    fields = {"name": "coder-1", "host": "10.1.2.3", "peer": "10.1.2.3", "capabilities": frozenset({"code.execute"})}
    return Application(**{**fields, **changes})  # type: ignore[arg-type]


def refused(policies: MembershipPolicySet, application: Application, principal: Principal = CODER) -> str:
    found = policies.admits(principal, application)
    assert isinstance(found, Refusal), found
    assert found.reason is Reason.REGISTRATION_DENIED
    return found.detail


def test_both_kinds_of_policy_may_stand_in_one_folder_even_under_one_name() -> None:
    loaded = load_all({"a.yaml": POLICY + "---\n" + TRUST})
    assert [each.metadata.name for each in loaded.membership] == ["agents"]
    assert [each.policy.kind for each in loaded.trust] == ["TrustPolicy"]
    assert len(load_policies({"a.yaml": POLICY})) == 0


def test_a_registration_that_one_rule_allows_in_whole_is_admitted_by_it() -> None:
    found = compiled(POLICY).admits(CODER, asked(labels=(("tier", "sandbox"),), trust=0.9))
    assert isinstance(found, Admitting)
    assert (found.name, found.spec.max_trust, found.spec.max_lease_s) == ("agents/coders", 0.9, 60)


def test_without_a_policy_nobody_registers_anything() -> None:
    assert refused(MembershipPolicySet(), asked()) == "no rule lets you register agents"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "planner-1"}, "no rule lets you register the name planner-1"),
        ({"capabilities": frozenset({"code.execute", "pay"})}, "rule agents/coders does not allow the capability pay"),
        ({"host": "192.168.0.1"}, "rule agents/coders does not allow the address 192.168.0.1, but other addresses"),
        ({"host": "agents.local"}, "rule agents/coders does not allow the address agents.local, but other addresses"),
        ({"host": "10.1"}, "rule agents/coders does not allow the address 10.1, but other addresses"),
        ({"labels": (("tier", "prod"),)}, "rule agents/coders does not allow the label tier=prod"),
        ({"labels": (("zone", "a"),)}, "rule agents/coders does not allow the label zone=a"),
        ({"trust": 0.91}, "rule agents/coders allows no trust above 0.9"),
    ],
)
def test_a_refusal_says_what_is_not_allowed(changes: dict[str, Any], told: str) -> None:
    assert refused(compiled(POLICY), asked(**changes)) == told


def test_a_refusal_tells_nothing_of_rules_about_others() -> None:
    stranger = Principal(SpiffeId("spiffe://mesh.local/ns/agents/sa/planner"))
    assert refused(compiled(POLICY), asked(), stranger) == "no rule lets you register agents"


@pytest.mark.parametrize("host", ["10.255.0.1", "fd00::7", "::ffff:10.0.0.1", "a.b.agents.local", "A.Agents.Local"])
def test_addresses_are_networks_and_globs_of_hosts(host: str) -> None:
    assert isinstance(compiled(POLICY).admits(CODER, asked(host=host)), Admitting)


@pytest.mark.parametrize(
    ("host", "peer", "allowed"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "::ffff:10.1.2.3", True),
        ("fd00::1", "fd00:0::1", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("coder.agents.local", "10.1.2.3", False),
        ("", "", False),
    ],
)
def test_a_rule_without_addresses_allows_only_the_one_that_the_caller_connects_from(
    host: str, peer: str, allowed: bool
) -> None:
    text = "\n".join(line for line in POLICY.splitlines() if "addresses" not in line)
    assert isinstance(compiled(text).admits(CODER, asked(host=host, peer=peer)), Admitting) is allowed


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("      maxTrust: 0.9\n", "", "6:7: spec.rules.0.maxTrust: this field is required"),
        ("maxTrust: 0.9", "maxTrust: 1.9", "11:17: spec.rules.0.maxTrust: expected 1.0 or less"),
        ("maxLease: 1m", "maxLease: 60", "13:17: spec.rules.0.maxLease: expected a duration"),
        ("maxLease: 1m", "maxLease: 10ms", "13:17: spec.rules.0.maxLease: expected 1.0 or more"),
        ("maxLease", "maxlease", "13:7: unknown field 'maxlease'; did you mean 'maxLease'?"),
        ("10.0.0.0/8", "10.0.0.1/8", "10:19: spec.rules.0.addresses.0: '10.0.0.1/8' is neither a CIDR"),
        ("10.0.0.0/8", '"10.*"', "10:19: spec.rules.0.addresses.0: '10.*' is neither a CIDR"),
        ("coder-*", "Coder", "8:15: spec.rules.0.names.0: 'Coder' is not a pattern of agents' names"),
        (
            "kind: MembershipPolicy",
            "kind: Policy",
            "2:7: kind: expected TrustPolicy or MembershipPolicy or UpstreamCredential or TokenExchange, found Policy",
        ),
    ],
)
def test_a_mistake_is_told_where_it_stands(old: str, new: str, told: str) -> None:
    assert old in POLICY
    with pytest.raises(DocumentError) as caught:
        load_all({"p.yaml": POLICY.replace(old, new)})
    assert any(str(each).startswith(f"p.yaml:{told}") for each in caught.value.problems), caught.value.problems


def test_two_policies_of_one_name_are_refused_naming_both_places() -> None:
    with pytest.raises(DocumentError, match=r"b.yaml:3:18: .*a.yaml:3"):
        load_all({"a.yaml": POLICY, "b.yaml": POLICY})


NAMES = ("coder-1", "coder-2", "linter")
CAPABILITIES = ("code.execute", "code.review", "lint")
HOSTS = ("10.0.0.1", "10.9.0.1", "a.local")
rules = st.fixed_dictionaries(
    {
        "from": st.just([CODER.id]) | st.just(["spiffe://mesh.local/ns/*/sa/planner"]),
        "names": st.lists(st.sampled_from(["*", "coder-*", "linter"]), min_size=1, max_size=2),
        "capabilities": st.lists(st.sampled_from(["*", "code.*", "lint"]), min_size=1, max_size=2),
        "maxTrust": st.sampled_from([0.5, 1.0]),
    },
    optional={
        "addresses": st.lists(st.sampled_from(["10.0.0.0/16", "*.local", "10.9.0.1"]), min_size=1, max_size=2),
        "labels": st.just({"tier": "a"}),
    },
)
applications = st.builds(
    Application,
    name=st.sampled_from(NAMES),
    host=st.sampled_from(HOSTS),
    peer=st.sampled_from(HOSTS[:2]),
    capabilities=st.frozensets(st.sampled_from(CAPABILITIES)),
    trust=st.sampled_from([None, 0.4, 0.7]),
    labels=st.sampled_from([(), (("tier", "a"),), (("tier", "b"),)]),
)


def _globbed(pattern: str, text: str) -> bool:
    return pattern == "*" or text == pattern or (pattern[-1] == "*" and text.startswith(pattern[:-1]))


def _at(pattern: str, host: str) -> bool:
    if host == "a.local" or pattern == "*.local":
        return host == "a.local" and pattern == "*.local"
    return ipaddress.ip_address(host) in ipaddress.ip_network(pattern)


def naive(rule: dict[str, Any], application: Application) -> bool:
    """One rule, straight from the page."""
    return (
        rule["from"] == [CODER.id]
        and any(_globbed(pattern, application.name) for pattern in rule["names"])
        and all(any(_globbed(pattern, each) for pattern in rule["capabilities"]) for each in application.capabilities)
        and (
            any(_at(pattern, application.host) for pattern in rule["addresses"])
            if "addresses" in rule
            else application.host == application.peer
        )
        and set(application.labels) <= set(rule.get("labels", {}).items())
        and (application.trust is None or application.trust <= rule["maxTrust"])
    )


@given(st.lists(rules, max_size=5), applications, st.integers())
def test_the_first_rule_that_allows_all_of_it_admits_whatever_the_order_of_files(
    written: list[dict[str, Any]], application: Application, seed: int
) -> None:
    texts = {
        f"p{number}": json.dumps(
            {
                "apiVersion": "phoenixflight.io/v1",
                "kind": "MembershipPolicy",
                "metadata": {"name": f"p{number}"},
                "spec": {"rules": [{"name": "r", **rule}]},
            }
        )
        for number, rule in enumerate(written)
    }
    policies = list(load_all(texts).membership)
    expected = next((f"p{number}/r" for number, rule in enumerate(written) if naive(rule, application)), None)
    found = MembershipPolicySet(policies).admits(CODER, application)
    Random(seed).shuffle(policies)
    assert found == MembershipPolicySet(policies).admits(CODER, application)
    assert (found.name if isinstance(found, Admitting) else None) == expected
