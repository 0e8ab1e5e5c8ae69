"""UpstreamCredential and TokenExchange documents: what they may say, and whom they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.documents import DocumentError
from gateway.packet import Capabilities
from gateway.policy.brokering import Brokered, Brokering, FromFile, Injection, without
from gateway.policy.load import load_all
from gateway.routing import Agent

EXECUTOR = Agent("executor-1", "127.0.0.1", 1, frozenset({"a"}), labels=(("tier", "gold"),))
SPEC: dict[str, Any] = {"capabilities": ["keys.*"], "agents": {"names": ["executor-1"]}, "secretFile": "key"}


def document(name: str = "keys", **changes: Any) -> str:
    spec = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
    return yaml.safe_dump(
        {
            "apiVersion": "phoenixflight.io/v1",
            "kind": "UpstreamCredential",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


def brokering(*texts: str) -> Brokering:
    return Brokering(load_all({f"/etc/policies/{number}.yaml": text for number, text in enumerate(texts)}).credentials)


def test_a_packet_that_asks_for_several_things_is_concerned_by_one_of_them() -> None:
    found = brokering(document()).of(Capabilities(("code.execute", "keys.read")), EXECUTOR)
    injection = Injection("keys", b"authorization", b"Bearer ", FromFile(Path("/etc/policies/key")))
    assert found == Brokered(frozenset({b"authorization"}), (injection,))


def test_of_two_documents_about_one_field_the_first_by_name_holds() -> None:
    found = brokering(document("b"), document("a", secretFile="other"), document("c", header="X-Api-Key"))
    brokered = found.of(Capabilities(("keys.read",)), EXECUTOR)
    assert brokered is not None
    assert [(each.document, each.header) for each in brokered.injections] == [
        ("a", b"authorization"),
        ("c", b"x-api-key"),
    ]
    assert without(brokered.strip, [(b"x_api-key", b"1"), (b"authorization", b"2"), (b"x", b"3")]) == [(b"x", b"3")]


def test_an_agent_that_changes_is_looked_at_again() -> None:
    found = brokering(document(agents={"labels": {"tier": "gold"}}))
    asked = Capabilities(("keys.read",))
    gold, lead = found.of(asked, EXECUTOR), found.of(asked, Agent("executor-1", "127.0.0.1", 1, frozenset({"a"})))
    assert gold is not None
    assert lead is not None
    assert (len(gold.injections), len(lead.injections)) == (1, 0)
    assert lead.strip == gold.strip


SERVER = {"tokenUrl": "https://idp.example/token", "clientId": "gateway", "clientSecretFile": "secret"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"secretFile": None}, "takes one of secretFile and oauth"),
        ({"oauth": SERVER}, "takes one of secretFile and oauth"),
        ({"agents": {}}, "says nobody"),
        ({"header": "flight-credential"}, "needs for itself"),
        ({"header": "Content-Length"}, "needs for itself"),
        ({"header": "x_api_key"}, "is not the name of a header field"),
        ({"header": "x: y"}, "is not the name of a header field"),
        ({"scheme": "Basic"}, "expected 'Bearer' or 'none'"),
        ({"secretFile": None, "oauth": {**SERVER, "tokenUrl": "http://idp.example/token"}}, "expected an https:// URL"),
        ({"secretFile": None, "oauth": {**SERVER, "tokenUrl": "https://u:p@idp.example/"}}, "without user information"),
        ({"secretFile": None, "oauth": {**SERVER, "scope": ["a b"]}}, "is not a scope"),
    ],
)
def test_what_is_wrong_with_a_document_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DocumentError, match=told):
        brokering(document(**changes))


def test_a_plain_token_url_is_for_this_machine() -> None:
    text = document(secretFile=None, oauth={**SERVER, "tokenUrl": "http://127.0.0.1:8080/token"})
    assert brokering(text).files == {Path("/etc/policies/secret")}
