"""What a credential lets its holder spend, asked for by 64 children at once through two gateways with one Redis."""

from __future__ import annotations

import json
import random
import re
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from joserfc.jwk import ECKey

from gateway.authority import Terms, load_key_ring
from gateway.authority.spec import ISSUER
from gateway.authority.token import mint
from gateway.decision import uuid7
from gateway.identity import SpiffeId
from gateway.policy.patterns import CapabilityPattern
from tests.conformance.test_credentials import Mesh
from tests.conformance.trust import AGENTS, policy, requests_on, rule
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, StartGateway, member
from tests.redis_server import RedisServer

PLANNER, CODER = SpiffeId(f"{AGENTS}/planner"), SpiffeId(f"{AGENTS}/coder")
BUDGET, RESERVED, SPENT = 1000, 100, 60
CHILDREN = 64


class Spender:
    """An agent that spends less than it may, where it may spend enough, and says so."""

    def __init__(self) -> None:
        self.spent: list[int] = []

    def serve(self, _: RawAgent, connection: socket.socket) -> None:
        for stream in requests_on(connection):
            allowed = re.search(rb"flight-budget:[^\r]*tokens=(\d+)", stream)
            assert allowed is not None
            spent = min(SPENT, int(allowed[1]))
            self.spent.append(spent)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nflight-usage: tokens=%d\r\n\r\n" % spent)


def credential(key: ECKey, certs: Path) -> str:
    """For the coder, as a gateway with this key would give it."""
    now = time.time()
    terms = Terms(
        parent="",
        root="root-1",
        conversation="",
        subject=PLANNER,
        lineage=(PLANNER,),
        capabilities=(CapabilityPattern("*"),),
        budget={"tokens": BUDGET, "hops": 5},
        expires=now + 60,
    )
    ring = load_key_ring([("test", json.dumps(key.as_dict(private=True)))])
    jti = uuid7(now, random.getrandbits)
    thumbprint = Mesh.thumbprint_in(certs, "coder")
    return mint(terms, ring.signing, now, issuer=ISSUER, jti=jti, audience=CODER, thumbprint=thumbprint).decode()


def ask(gateway: RunningGateway, shown: str, tokens: int) -> int:
    headers = {**CAPABILITY, "flight-credential": shown, "flight-budget": f"tokens={tokens}"}
    with gateway.client("coder") as client:
        return int(client.post("/run", headers=headers, content=b"job").status_code)


def test_64_children_through_two_gateways_spend_no_more_than_their_parent_has_and_refunds_come_back(
    start_gateway: StartGateway, raw_agent, redis: RedisServer, certs: Path, tmp_path: Path
) -> None:
    key = ECKey.generate_key("P-256")
    keys = tmp_path / "authority.json"
    keys.write_text(json.dumps({"keys": [key.as_dict(private=True)]}))
    rules = policy(rule("coders", callers="coder", grant={"capabilities": ["*"]}))
    spender = Spender()
    agent = raw_agent(spender.serve)
    gateways = [
        start_gateway([member(agent.port)], policy=rules, authority={"keys": [str(keys)]}, redis={"url": redis.url})
        for _ in range(2)
    ]
    shown = credential(key, certs)
    with ThreadPoolExecutor(CHILDREN) as children:
        asked = [children.submit(ask, gateways[number % 2], shown, RESERVED) for number in range(CHILDREN)]
        answers = Counter(each.result() for each in asked)
    assert set(answers) <= {200, 429}
    assert answers[200] == len(spender.spent) >= BUDGET // RESERVED
    assert sum(spender.spent) <= BUDGET
    # What was reserved and not spent is there again: to the last token, and no further.
    while ask(gateways[len(spender.spent) % 2], shown, RESERVED) == 200:
        assert sum(spender.spent) <= BUDGET
    assert sum(spender.spent) == BUDGET
