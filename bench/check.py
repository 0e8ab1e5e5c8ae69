"""Before anything is measured: the proof that a proxy does the work that it is measured for."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import httpx

from bench.agents import AGENTS
from bench.call import BODY, CAPABILITY, CONVERSATIONS
from bench.client import tls_context
from bench.process import BenchFailure
from bench.proxy import Proxy

_LOG_TIMEOUT_S = 15.0
"""Envoy writes its access log every ten seconds."""


def check(proxy: Proxy) -> None:
    """Certificates, policy, ring, metrics: the same behaviour for each proxy, seen from outside.

    Raises:
        BenchFailure: it is not so; with what was seen.

    """
    site = proxy.site
    url = f"https://localhost:{site.port}/run"
    for alpn, version in (("h2", "HTTP/2"), ("http/1.1", "HTTP/1.1")):
        with _client(site.certs, alpn) as planner:
            served = [_ask(planner, url, conversation) for conversation in CONVERSATIONS[:200]]
            other = next((answer for answer in served if answer.status_code != 200), None)
            _expect(proxy, other is None, f"a planner's packet is not handed on: {other} {other and other.text}")
            _expect(proxy, served[0].http_version == version, f"{version} is spoken")
            agents = [answer.headers["x-served-by"] for answer in served]
            _expect(proxy, len(set(agents)) == AGENTS, f"conversations spread over {AGENTS} agents")
            again = [_ask(planner, url, each).headers["x-served-by"] for each in CONVERSATIONS[:20]]
            _expect(proxy, again == agents[:20], "a conversation stays with its agent")
            if proxy.kind.decides:
                other = _ask(planner, url, CONVERSATIONS[0], capability=b"mail.send").status_code
                _expect(proxy, other in (403, 404), f"another capability is refused, not answered {other}")
    if proxy.kind.decides:
        with _client(site.certs, "h2", caller="stranger") as stranger:
            status = _ask(stranger, url, CONVERSATIONS[0]).status_code
            _expect(proxy, status == 403, f"a stranger is refused with 403, not {status}")
    _expect(proxy, not _gets_in_without_certificate(site.certs, url), "nobody gets in without a certificate")
    metrics = httpx.get(f"http://127.0.0.1:{site.admin}{proxy.kind.metrics_path}")
    _expect(proxy, metrics.status_code == 200 and len(metrics.text) > 500, "metrics are served")
    if not proxy.kind.logs:
        _expect(proxy, not site.access_log.exists(), "no access log is written")
        return
    deadline = time.monotonic() + _LOG_TIMEOUT_S
    while site.access_log.stat().st_size == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    _expect(proxy, site.access_log.stat().st_size > 0, "the access log is written")


def _client(certs: Path, alpn: str, caller: str = "planner") -> httpx.Client:
    context = tls_context(certs, alpn, caller)
    return httpx.Client(verify=context, http2=alpn == "h2", http1=alpn != "h2", trust_env=False)


def _ask(client: httpx.Client, url: str, conversation: bytes, capability: bytes = CAPABILITY) -> httpx.Response:
    fields = {b"flight-capability": capability, b"flight-conversation": conversation}
    return client.post(url, content=BODY, headers={**fields, b"content-type": b"application/json"})


def _gets_in_without_certificate(certs: Path, url: str) -> bool:
    context = ssl.create_default_context(cafile=str(certs / "ca.pem"))
    try:
        with httpx.Client(verify=context, trust_env=False) as nobody:
            _ask(nobody, url, CONVERSATIONS[0])
    except httpx.TransportError:
        return False
    return True


def _expect(proxy: Proxy, seen: bool, what: str) -> None:
    if not seen:
        raise BenchFailure(f"it does not do the bench's work: {what}")
