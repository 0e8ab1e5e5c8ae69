"""Work that is handed on from agent to agent, with the credentials that the gateway gives them."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from joserfc import jwt as jose
from joserfc.jwk import ECKey, KeySet, OKPKey

from gateway.authority import Terms, load_key_ring
from gateway.authority.spec import ISSUER
from gateway.authority.token import mint
from gateway.identity import SpiffeId, thumbprint_of
from gateway.packet.packet import parse_budget
from gateway.policy.patterns import CapabilityPattern
from tests.conformance.test_http1 import OK
from tests.conformance.trust import AGENTS, enforce, policy, refusal, rule
from tests.conftest import RawAgent, RunningGateway, StartGateway, member
from tests.waiting import eventually

PLANNER, CODER, EXECUTOR = (SpiffeId(f"{AGENTS}/{name}") for name in ("planner", "coder", "executor"))
GRANTED = policy(
    rule("planners", callers="planner", grant={"capabilities": ["code.*"], "budget": {"tokens": 900}, "ttl": "60s"}),
    rule("coders", callers="coder", grant={"capabilities": ["code.execute", "web.*"], "budget": {"tokens": 500}}),
    rule("others", callers="executor"),
)
WRITE, EXECUTE = {"flight-capability": "code.write"}, {"flight-capability": "code.execute"}


def key_set(*keys: ECKey | OKPKey) -> str:
    return json.dumps({"keys": [key.as_dict(private=True) for key in keys]})


class Mesh:
    """A coder and an executor behind mTLS, and a gateway with keys that hands work to them."""

    def __init__(self, start: StartGateway, agent: Callable[..., RawAgent], certs: Path, keys: Path) -> None:
        self.certs = certs
        self.key = ECKey.generate_key("P-256")
        self.keys = keys
        self.idle = threading.Event()
        """The coder answers; while it is at work, it has what it was given."""
        self.idle.set()
        keys.write_text(key_set(self.key))
        self.agents = {name: agent(self._serve(name)) for name in ("coder", "executor")}
        self.gateway: RunningGateway = start(
            [
                member(self.agents["coder"].port, "coder-1", capabilities=["code.write"], spiffeId=CODER),
                member(self.agents["executor"].port, "executor-1", spiffeId=EXECUTOR),
            ],
            policy=GRANTED,
            authority={"keys": [str(keys)]},
        )

    def _serve(self, name: str) -> Callable[[RawAgent, Any], None]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certs / f"{name}.pem", self.certs / f"{name}-key.pem")

        def serve(agent: RawAgent, connection: Any) -> None:
            with context.wrap_socket(connection, server_side=True) as secure:
                while True:
                    agent.read_head(secure)
                    assert name != "coder" or self.idle.wait(10)
                    secure.sendall(OK)

        return serve

    def post(self, caller: str, headers: dict[str, str]) -> Any:
        with self.gateway.client(caller) as client:
            return client.post("/run", headers=headers)

    def got(self, name: str) -> dict[str, str]:
        """The fields that an agent got last."""
        lines = self.agents[name].received[-1].decode().split("\r\n")[1:]
        return {key.lower(): value for key, _, value in (line.partition(": ") for line in lines if line)}

    def hand_to_coder(self, **headers: str) -> str:
        """The credential that the coder gets for a packet of the planner."""
        answer = self.post("planner", {**WRITE, "flight-id": '"root-1"', "flight-conversation": '"c"', **headers})
        assert answer.status_code == 200, answer.text
        return self.got("coder")["flight-credential"]

    @contextmanager
    def coder_at_work(self, **headers: str) -> Iterator[str]:
        """While the coder does what the planner has handed it: the credential that it got."""
        count = len(self.agents["coder"].received)
        self.idle.clear()
        with ThreadPoolExecutor(1) as planner:
            asked = planner.submit(self.hand_to_coder, **headers)
            try:
                eventually(lambda: len(self.agents["coder"].received) > count)
                yield self.got("coder")["flight-credential"]
            finally:
                self.idle.set()
            asked.result()

    def thumbprint(self, name: str) -> str:
        return self.thumbprint_in(self.certs, name)

    @staticmethod
    def thumbprint_in(certs: Path, name: str) -> str:
        leaf = (certs / f"{name}.pem").read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
        return thumbprint_of(ssl.PEM_cert_to_DER_cert(leaf))

    def forged(
        self,
        key: ECKey | None = None,
        *,
        issuer: str = ISSUER,
        now: float | None = None,
        thumbprint: str = "",
        **terms: Any,
    ) -> str:
        """A credential of the coder, signed by `key` or by the gateway's own."""
        now = time.time() if now is None else now
        said: dict[str, Any] = {
            "parent": "",
            "root": "root-1",
            "conversation": "",
            "subject": PLANNER,
            "lineage": (PLANNER,),
            "capabilities": (CapabilityPattern("*"),),
            "budget": {"tokens": 900, "hops": 5},
            "expires": now + 60,
        }
        ring = load_key_ring([("test", json.dumps((key or self.key).as_dict(private=True)))])
        token = mint(
            Terms(**{**said, **terms}),
            ring.signing,
            now,
            issuer=issuer,
            jti="forged",
            audience=CODER,
            thumbprint=thumbprint or self.thumbprint("coder"),
        )
        return token.decode()


@pytest.fixture
def mesh(start_gateway: StartGateway, raw_agent, certs: Path, tmp_path: Path) -> Mesh:
    return Mesh(start_gateway, raw_agent, certs, tmp_path / "authority.json")


def test_two_hops_narrow_and_anybody_can_verify_what_was_given(mesh: Mesh) -> None:
    with mesh.coder_at_work(**{"flight-budget": "tokens=700, cost=2.5"}) as first:
        assert mesh.post("coder", {**EXECUTE, "flight-credential": first}).status_code == 200
    told = mesh.got("coder")
    assert told["flight-lineage"] == f'"{PLANNER}"'
    assert sorted(told["flight-budget"].split(", ")) == ["cost=2.5", "hops=7", "tokens=700"]
    second = mesh.got("executor")
    assert second["flight-lineage"] == f'"{PLANNER}", "{CODER}"'
    assert parse_budget(second["flight-budget"].encode()) == {"tokens": 500, "hops": 6}

    published = mesh.gateway.admin("/jwks.json").json()
    assert "d" not in published["keys"][0]
    keys = KeySet.import_key_set(published)
    by_pyjwt = jwt.decode(
        second["flight-credential"],
        jwt.PyJWKSet.from_dict(published)[published["keys"][0]["kid"]].key,
        algorithms=["ES256", "EdDSA"],
        audience=EXECUTOR,
        issuer=ISSUER,
    )
    by_joserfc = jose.decode(second["flight-credential"], keys, algorithms=["ES256"])
    assert by_joserfc.claims == by_pyjwt
    assert by_joserfc.header["typ"] == "flight+jwt"
    before = jose.decode(first, keys, algorithms=["ES256"]).claims
    assert (before["sub"], before["act"], before["cap"]) == (PLANNER, {"sub": PLANNER}, ["code.*"])
    assert by_pyjwt["act"] == {"sub": CODER, "act": {"sub": PLANNER}}
    assert (by_pyjwt["sub"], by_pyjwt["txn"], by_pyjwt["conv"]) == (PLANNER, "root-1", "c")
    assert (by_pyjwt["parent"], by_pyjwt["cap"]) == (before["jti"], ["code.execute"])
    assert by_pyjwt["bud"] == {"tokens": 500, "hops": 6}
    assert by_pyjwt["exp"] <= before["exp"] <= before["iat"] + 60
    assert by_pyjwt["cnf"] == {"x5t#S256": mesh.thumbprint("executor")}

    logged = mesh.gateway.handoff(agent="executor-1")
    assert (logged["root"], logged["lineage"]) == ("root-1", [PLANNER, CODER])
    assert logged["credential"] == by_pyjwt["jti"]
    metrics = mesh.gateway.admin("/metrics").text
    assert 'phoenixflight_credentials_total{claim="",outcome="minted"} 2.0' in metrics


def test_what_does_not_hold_is_refused_and_told_by_its_claim(mesh: Mesh) -> None:
    good = mesh.hand_to_coder()
    head, body, signature = good.split(".")
    wider = jose.encode({"alg": "ES256", "kid": "x", "typ": "flight+jwt"}, {}, mesh.key)
    foreign = ECKey.generate_key("P-256")
    cases = [
        ("executor", good, 401, "aud"),
        ("coder", mesh.forged(now=time.time() - 120), 401, "exp"),
        ("coder", mesh.forged(foreign), 401, "kid"),
        ("coder", mesh.forged(issuer="https://elsewhere.example"), 401, "iss"),
        ("coder", mesh.forged(now=time.time() + 90), 401, "nbf"),
        ("coder", wider, 401, "kid"),
        ("coder", f"{head}.{body[:-4]}AAAA.{signature}", 401, "signature"),
        ("coder", f"{head}.{body}.", 401, "signature"),
        ("coder", "a.b", 401, "token"),
        ("coder", good + "A" * 20_000, 401, "token"),
        ("coder", mesh.forged(capabilities=(CapabilityPattern("web.*"),)), 403, "cap"),
    ]
    with mesh.gateway.client("coder") as coder, mesh.gateway.client("executor") as executor:
        for caller, credential, status, claim in cases:
            client = coder if caller == "coder" else executor
            answer = client.post("/run", headers={**EXECUTE, "flight-credential": credential})
            assert answer.status_code == status, claim
            assert answer.json()["detail"].startswith(f"{claim}: "), answer.text
        other = coder.post("/run", headers={**EXECUTE, "flight-credential": good, "flight-conversation": '"another"'})
        assert (other.status_code, other.json()["detail"][:5]) == (403, "conv:")
    assert not mesh.agents["executor"].received
    assert 'phoenixflight_credentials_total{claim="exp",outcome="refused"} 1.0' in mesh.gateway.admin("/metrics").text


def test_a_stolen_credential_is_of_no_use_with_another_certificate(mesh: Mesh) -> None:
    stolen = mesh.forged(thumbprint=mesh.thumbprint("mallory"))
    answer = mesh.post("coder", {**EXECUTE, "flight-credential": stolen})
    assert (refusal(answer), answer.json()["detail"][:4]) == ((401, "credential-invalid"), "cnf:")
    assert not mesh.agents["executor"].received


def test_loops_and_hops_have_an_end(mesh: Mesh) -> None:
    # The coder asks for what only a coder does; the planner's packet has been with it.
    again = mesh.post("coder", {**WRITE, "flight-credential": mesh.forged()})
    assert refusal(again) == (508, "lineage-loop")
    spent = mesh.post("coder", {**EXECUTE, "flight-credential": mesh.forged(budget={"hops": 0})})
    assert refusal(spent) == (508, "hops-exhausted")
    own = mesh.post("coder", {**EXECUTE, "flight-credential": mesh.forged(), "flight-budget": "hops=0"})
    assert refusal(own) == (508, "hops-exhausted")
    last = mesh.post("coder", {**EXECUTE, "flight-credential": mesh.forged(budget={"hops": 1})})
    assert (last.status_code, mesh.got("executor")["flight-budget"]) == (200, "hops=0, tokens=500")


def test_a_rule_can_require_one_and_without_a_grant_none_goes_on(mesh: Mesh) -> None:
    enforce(mesh.gateway, policy(rule("handed", require={"credential": True}, when="credential.root == 'root-1'")))
    bare = mesh.post("coder", EXECUTE)
    assert bare.status_code == 403
    assert mesh.post("coder", {**EXECUTE, "flight-credential": mesh.forged()}).status_code == 200
    got = mesh.got("executor")
    assert "flight-credential" not in got
    assert got["flight-lineage"] == f'"{PLANNER}", "{CODER}"'
    enforce(mesh.gateway, policy(rule("handed", require={"credential": True})))
    assert refusal(mesh.post("coder", EXECUTE)) == (403, "credential-insufficient")


def test_keys_rotate_under_traffic(mesh: Mesh) -> None:
    fresh = OKPKey.generate_key("Ed25519")
    codes: set[int] = set()
    stop = threading.Event()
    given: list[str] = []

    def hand_on() -> None:
        while not stop.is_set():
            with mesh.coder_at_work() as credential:
                codes.add(mesh.post("coder", {**EXECUTE, "flight-credential": credential}).status_code)
            given.append(credential)

    thread = threading.Thread(target=hand_on)
    thread.start()
    try:
        for keys in ((mesh.key, fresh), (fresh, mesh.key)):
            before = mesh.gateway.revision()
            mesh.keys.write_text(key_set(*keys))
            eventually(lambda: mesh.gateway.revision() != before)  # noqa: B023
        count = len(given)
        eventually(lambda: len(given) > count + 3)
    finally:
        stop.set()
        thread.join()
    assert codes == {200}
    assert len({jwt.get_unverified_header(each)["alg"] for each in given}) == 2
    mesh.keys.write_text("{}")
    eventually(lambda: not mesh.gateway.admin("/status").json()["in_step_with_files"])
    with mesh.coder_at_work() as credential:
        assert mesh.post("coder", {**EXECUTE, "flight-credential": credential}).status_code == 200


def test_a_gateway_without_keys_takes_no_credential(start_gateway: StartGateway, raw_agent) -> None:
    agent = raw_agent(lambda agent, connection: agent.read_head(connection))
    gateway = start_gateway([member(agent.port)])
    with gateway.client("coder") as client:
        answer = client.post("/run", headers={**EXECUTE, "flight-credential": "a.b.c"})
    assert refusal(answer) == (401, "credential-invalid")
    assert "no keys" in answer.json()["detail"]
    assert gateway.admin("/jwks.json").json() == {"keys": []}
