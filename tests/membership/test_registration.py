"""What a registration says, and the member that it makes."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import SpiffeId
from gateway.membership.redis_registration_scripts import read, written
from gateway.membership.registration import (
    Registration,
    RegistrationBody,
    agent_of,
    application,
    grant,
    read_body,
    read_drain,
    read_name,
)
from gateway.routing import AgentState
from tests.membership.registering import BODY, EXECUTOR, RULE, membership

FIELDS = [field.alias or name for name, field in RegistrationBody.model_fields.items()]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=4), scalars, max_size=3)


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), values, max_size=5), st.booleans())
def test_whatever_json_comes_is_a_registration_or_a_clear_refusal(body: dict[str, Any], whole: bool) -> None:
    with suppress(ValueError):
        read_body(json.dumps({**BODY, **body} if whole else body).encode())


@given(st.binary(max_size=64))
def test_whatever_bytes_come_are_a_registration_or_a_clear_refusal(body: bytes) -> None:
    with suppress(ValueError):
        read_body(body)


@given(st.text(max_size=16))
def test_whatever_is_asked_for_is_a_name_and_a_time_or_a_clear_refusal(text: str) -> None:
    with suppress(ValueError):
        assert read_name(text) == text
    with suppress(ValueError):
        assert 0 <= read_drain(text) <= 600


def granted(body: dict[str, Any], **rule: Any) -> Registration:
    asked = read_body(json.dumps({**BODY, **body}).encode())
    policies = membership({**RULE, "addresses": ["0.0.0.0/0", "::/0", "*"], **rule})
    owner = SpiffeId(EXECUTOR)
    return grant("executor-1", asked, owner, policies.rules[0])


def test_a_rule_cuts_the_lease_and_gives_the_trust_that_is_not_asked_for() -> None:
    assert (granted({}).trust, granted({"trust": 0.1}).trust) == (0.9, 0.1)
    assert (granted({"lease": "1h"}).lease_s, granted({"lease": "2s"}).lease_s, granted({}).lease_s) == (60, 2, 30)


def test_of_a_card_a_member_has_what_its_rule_allows_beside_what_it_named_itself() -> None:
    registration = granted({"agentCard": True})
    assert agent_of(registration, frozenset({"code.review", "pay"})).capabilities == {"code.execute", "code.review"}


@pytest.mark.parametrize("address", ["127.0.0.1:80", "[::1]:80", "a.local:80"])
def test_a_registration_comes_back_from_the_store_as_it_went_there(address: str) -> None:
    body = {"address": address, "labels": {"tier": "sandbox"}, "protocol": "h2", "zone": "eu-1a", "trust": 0.3}
    registration = granted({**body, "contextPath": "/context"})
    assert read(written(registration)) == registration
    agent = agent_of(registration)
    assert (agent.state, agent.context_path) == (AgentState.READY, "/context")


def test_what_policies_see_is_what_is_asked_for() -> None:
    body = read_body(json.dumps({**BODY, "labels": {"b": "1", "a": "2"}}).encode())
    asked = application("executor-1", body, "10.0.0.1")
    assert (asked.host, asked.peer, asked.labels) == ("127.0.0.1", "10.0.0.1", (("a", "2"), ("b", "1")))
    assert asked.trust is None
