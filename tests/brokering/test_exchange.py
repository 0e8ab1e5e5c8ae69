"""``POST /oauth2/token`` over mTLS: who gets a token for a third party, for what, and what everybody else is told."""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import OKPKey

from gateway.authority import Authority, AuthoritySpec, Terms, load_key_ring
from gateway.brokering.exchange import TokenExchanges
from gateway.brokering.request import ACCESS_TOKEN, CREDENTIAL, GRANT_TYPE, JWT
from gateway.brokering.secrets import read_secrets
from gateway.brokering.servers import AuthorizationServers
from gateway.brokering.vouching import vouch
from gateway.identity import SpiffeId, thumbprint_of
from gateway.policy import PolicySet
from gateway.policy.exchange import Exchanges
from gateway.policy.load import load_all
from gateway.policy.patterns import parse_capability_pattern
from gateway.proxy.local import LocalRequests
from gateway.snapshot import Snapshot
from tests.brokering.authorization_server import AuthorizationServer, authorization_server
from tests.brokering.test_injection import document
from tests.conformance.trust import AGENTS
from tests.membership.registering import EXECUTOR, registering

ISSUER = "https://gateway.mesh.example"
PLANNER, CODER = f"{AGENTS}/planner", f"{AGENTS}/coder"
BANK, SHOP = "https://bank.example/api", "https://shop.example"
_PEM = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
RING = load_key_ring([("key.pem", Ed25519PrivateKey.generate().private_bytes(*_PEM).decode())])
SPEC = AuthoritySpec(issuer=ISSUER, keys=(Path("key.pem"),))
SNAPSHOT = Snapshot("r", PolicySet(()), (), authority=Authority(RING, SPEC))
KEY = OKPKey.import_key(RING.keys[0].jwk)


def claims_of(token: str) -> dict[str, Any]:
    """Of a JWT that the gateway has signed, as whoever has its public key reads it."""
    found = jwt.decode(token, KEY, algorithms=["EdDSA"])
    assert found.header == {"alg": "EdDSA", "kid": RING.keys[0].kid, "typ": "JWT"}
    return dict(found.claims)


class Handed:
    """Makes credentials of a piece of work that the planner began and the coder handed on."""

    def __init__(self, certs: Path) -> None:
        self._certs = certs
        self._numbers = itertools.count()

    def __call__(
        self, to: str = "executor", *, cap: tuple[str, ...] = ("payments.*",), lives_s: float = 200, bound: str = ""
    ) -> str:
        certificate = (self._certs / f"{bound or to}.pem").read_text()
        now = time.time()
        patterns = tuple(parse_capability_pattern(each) for each in cap)
        lineage = (SpiffeId(PLANNER), SpiffeId(CODER))
        terms = Terms("j-0", "f-1", "", lineage[0], lineage, patterns, {"hops": 2}, now + lives_s)
        thumbprint = thumbprint_of(ssl.PEM_cert_to_DER_cert(certificate))
        jti, audience = f"j-{next(self._numbers)}", SpiffeId(f"{AGENTS}/{to}")
        return Authority(RING, SPEC).mint(terms, now, jti=jti, audience=audience, thumbprint=thumbprint).decode()


class Office:
    """The endpoint on a running listener."""

    def __init__(
        self, http: httpx.AsyncClient, others: httpx.AsyncClient, exchanges: TokenExchanges, handed: Handed
    ) -> None:
        self.http, self.others, self.exchanges, self.handed = http, others, exchanges, handed

    async def ask(self, *, audience: str | None = BANK, token: str | None = None, **more: str) -> httpx.Response:
        form = {
            "grant_type": GRANT_TYPE,
            "subject_token": token or self.handed(),
            "subject_token_type": CREDENTIAL,
            **({"audience": audience} if audience else {}),
            **more,
        }
        return await self.http.post("/oauth2/token", data={name: value for name, value in form.items() if value})


@pytest.fixture(scope="module")
def server() -> Iterator[AuthorizationServer]:
    with authorization_server() as running:
        running.trusted = KEY
        yield running


@pytest.fixture
async def office(certs: Path, tmp_path: Path, server: AuthorizationServer) -> AsyncIterator[Office]:
    server.asked.clear()
    async with _office(certs, tmp_path, server) as running:
        yield running


@asynccontextmanager
async def _office(certs: Path, folder: Path, server: AuthorizationServer) -> AsyncIterator[Office]:
    (folder / "client").write_text(f"{server.secret}\n")
    outside = {"tokenUrl": server.url, "clientId": server.client_id, "clientSecretFile": "client"}
    terms = {"from": [f"{AGENTS}/executor"], "capability": "payments.charge"}
    documents = [
        document("TokenExchange", "bank", audiences=[BANK], scope=["charge", "refund"], ttl="2m", **terms),
        document(
            "TokenExchange",
            "shop",
            audiences=[SHOP, "https://nowhere.example"],
            scope=["buy"],
            authorizationServer=outside,
            **terms,
        ),
    ]
    loaded = load_all({str(folder / "exchanges.yaml"): yaml.safe_dump_all(documents)})
    exchanges = Exchanges(loaded.exchanges)
    secrets, problems = read_secrets(exchanges.files)
    assert problems == ()
    servers = AuthorizationServers(time.monotonic)
    numbers = itertools.count()
    endpoint = TokenExchanges(
        servers,
        exchanges=lambda: exchanges,
        secrets=lambda: secrets,
        verify=SNAPSHOT.credential,
        sign=partial(vouch, Authority(RING, SPEC)),
        wall=time.time,
        clock=time.monotonic,
        mint_id=lambda: f"j-{next(numbers)}",
    )
    async with registering(certs) as running:
        running.plane.local = LocalRequests(
            asyncio.get_running_loop(), (running.registrations, endpoint), running.plane.telemetry.defect
        )
        async with running.client() as http, running.client("coder") as others:
            yield Office(http, others, endpoint, Handed(certs))
        await endpoint.close()
        await servers.close()


def error(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["cache-control"] == "no-store"
    assert not set('"\\') & set(response.json()["error_description"])
    return response.status_code, response.json()["error"]


async def test_a_credential_becomes_a_token_for_the_third_party_that_names_everybody(office: Office) -> None:
    answer = await office.ask(scope="charge")
    told = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert (told["issued_token_type"], told["token_type"], told["scope"]) == (ACCESS_TOKEN, "Bearer", "charge")
    assert told["expires_in"] == 120
    claims = claims_of(told["access_token"])
    assert claims.pop("exp") - claims.pop("iat") == 120
    assert claims == {
        "iss": ISSUER,
        "sub": PLANNER,
        "aud": BANK,
        "client_id": EXECUTOR,
        "act": {"sub": EXECUTOR, "act": {"sub": CODER}},
        "txn": "f-1",
        "jti": "j-0",
        "scope": "charge",
    }
    assert office.exchanges.outcomes == {"issued": 1}


async def test_a_token_ends_with_the_credential_that_it_was_had_for(office: Office) -> None:
    answer = await office.ask(token=office.handed(lives_s=30), requested_token_type=JWT, audience=None, resource=BANK)
    assert answer.json()["issued_token_type"] == JWT
    assert 28 <= answer.json()["expires_in"] <= 30


async def test_what_was_handed_to_somebody_else_is_refused(office: Office) -> None:
    handed = office.handed
    issued = (await office.ask()).json()["access_token"]
    for foreign in (handed("coder"), handed(bound="coder"), handed(lives_s=-1), issued, "nonsense", "\u00fc.a.b"):
        assert error(await office.ask(token=foreign)) == (400, "invalid_request")
    office.http = office.others
    assert error(await office.ask()) == (400, "invalid_request")
    assert error(await office.ask(token=handed("coder"))) == (400, "invalid_target")  # theirs, but no document is


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"audience": "https://evil.example"}, "invalid_target"),
        ({"audience": f"{BANK}/"}, "invalid_target"),
        ({"resource": SHOP}, "invalid_target"),
        ({"audience": None}, "invalid_request"),
        ({"scope": "charge admin"}, "invalid_scope"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
        ({"subject_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"requested_token_type": CREDENTIAL}, "invalid_request"),
    ],
)
async def test_what_is_not_allowed_or_not_a_request_is_told_as_oauth_has_it(
    office: Office, change: dict[str, Any], told: str
) -> None:
    assert error(await office.ask(**change)) == (400, told)
    assert office.exchanges.outcomes == {told: 1}


@pytest.mark.parametrize("cap", [(), ("code.*",), ("payments.refund",)])
async def test_a_credential_that_is_not_for_this_gets_no_token(office: Office, cap: tuple[str, ...]) -> None:
    assert error(await office.ask(token=office.handed(cap=cap))) == (400, "invalid_request")


async def test_only_post_with_one_of_each_parameter(office: Office) -> None:
    assert (await office.http.get("/oauth2/token")).headers["allow"] == "POST"
    twice = await office.http.post("/oauth2/token", content=b"grant_type=a&grant_type=a")
    assert error(twice) == (400, "invalid_request")
    assert error(await office.http.post("/oauth2/token", content=b"\xff{}")) == (400, "invalid_request")
    # Beside it, and with a capability, a request is a packet like any other.
    for path, headers in (("/oauth2/tokens", {}), ("/oauth2/token", {"flight-capability": "no.such"})):
        answer = await office.http.post(path, headers=headers)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_an_authorization_server_gives_its_own_token_once_for_all_who_ask_the_same(
    office: Office, server: AuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    credential = office.handed()
    server.delay_s = 0.1
    answers = await asyncio.gather(*(office.ask(audience=SHOP, scope="buy", token=credential) for _ in range(5)))
    server.delay_s = 0.0
    answers.append(await office.ask(audience=SHOP, scope="buy", token=credential))
    (form,) = server.asked
    assert (form["grant_type"], form["audience"], form["scope"]) == (GRANT_TYPE, SHOP, "buy")
    assert credential not in form.values()  # it is of no use to anybody outside
    (token,) = {answer.json()["access_token"] for answer in answers}
    claims = server.claims(token)
    assert (claims["sub"], claims["aud"], claims["act"]["sub"]) == (PLANNER, SHOP, EXECUTOR)
    assert 0 < answers[-1].json()["expires_in"] <= 300
    await office.ask(audience=SHOP, scope="buy", token=office.handed(lives_s=100))
    assert len(server.asked) == 2
    secrets = (server.secret, credential, token, form["subject_token"])
    assert [secret for secret in secrets if secret in caplog.text] == []


async def test_a_server_that_refuses_or_is_away_is_told_of_and_not_asked_again_at_once(
    office: Office, server: AuthorizationServer
) -> None:
    credential = office.handed()
    for _ in range(2):
        refused = await office.ask(audience="https://nowhere.example", token=credential)
        assert error(refused) == (400, "invalid_target")
    assert len(server.asked) == 1
    server.broken = True
    for _ in range(2):
        away = await office.ask(audience=SHOP, token=credential)
        assert error(away) == (503, "temporarily_unavailable")
        assert away.headers["retry-after"] == "5"
    server.broken = False
    assert len(server.asked) == 2
