"""Who is an operator, how a browser becomes one, and what it takes that no other page acts in their name."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers

from gateway.admin.access import Access, Caller, Refused
from gateway.admin.attempts import MAX_ADDRESSES, MAX_FAILED, WINDOW_S, Attempts
from gateway.admin.sessions import COOKIE, LIFETIME_S, MAX_SESSIONS, Session, Sessions
from gateway.identity import Principal, parse_principal_pattern, parse_spiffe_id
from tests.admin.operators import TOKEN, ok, operator, order, with_token
from tests.conftest import RunningGateway, StartGateway, client_context, member

ORDERS = ("reload", "members/executor-1/drain", "members/executor-1/restore")
CODER = "spiffe://mesh.local/ns/agents/sa/coder"


def log_in(gateway: RunningGateway, token: str = TOKEN) -> httpx.Response:
    with operator(gateway, "") as anybody:
        return anybody.post("/session", json={"token": token})


def test_a_browser_becomes_an_operator_with_the_token_until_its_session_ends(running: RunningGateway) -> None:
    with operator(running, "") as browser:
        assert browser.get("/session").json()["operator"] is False
        assert browser.get("/status").status_code == 401
        for path in ORDERS:
            assert order(browser, path).status_code == 401
        begun = log_in(running)
        assert begun.json() == {"operator": True, "why": "it has a session"}
        cookie = begun.headers["set-cookie"]
        for part in ("HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={LIFETIME_S}"):
            assert part in cookie
        value = cookie.partition(";")[0].partition("=")[2]
        assert len(value) > 40
        browser.cookies.set(COOKIE, value)
        assert browser.get("/session").json()["operator"] is True
        assert browser.get("/status").status_code == 200
        assert order(browser, "reload", **{"sec-fetch-site": "same-origin"}).status_code == 200
        assert browser.delete("/session", headers={"sec-fetch-site": "same-origin"}).json()["operator"] is False
        browser.cookies.set(COOKIE, value)
        assert browser.get("/session").json()["operator"] is False, "the value itself is worth nothing any more"
    log = running.log()
    assert "operator session from 127.0.0.1: begun" in log
    assert "operator session from 127.0.0.1: reload: revision" in log
    assert value not in log


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (json.dumps({"token": "wrong-horse-battery-staple"}), "application/json", 401),
        (json.dumps({"token": TOKEN}), "text/plain", 415),
        (json.dumps({"token": TOKEN}), "application/x-www-form-urlencoded", 415),
        (json.dumps({"token": 7}), "application/json", 400),
        (json.dumps({"token": TOKEN, "more": 1}), "application/json", 400),
        ("{", "application/json", 400),
        (json.dumps({"token": "x" * 5000}), "application/json", 413),
        (json.dumps({"token": "\u00e9\ud800"}), "application/json", 400),
    ],
)
def test_what_is_no_token_begins_no_session(running: RunningGateway, body: str, content_type: str, status: int) -> None:
    with operator(running, "") as anybody:
        answer = anybody.post("/session", content=body, headers={"content-type": content_type})
    assert answer.status_code == status
    assert "set-cookie" not in answer.headers
    assert answer.json()["why"]


def test_another_page_cannot_act_for_an_operator(running: RunningGateway, admin: httpx.Client) -> None:
    own = f"http://127.0.0.1:{running.admin_port}"
    for headers, status in (
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"http://127.0.0.1:{running.admin_port + 1}"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": own, "sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"origin": own}, 200),
        ({"origin": own, "sec-fetch-site": "same-origin", "content-type": "application/json; charset=utf-8"}, 200),
        ({}, 200),
    ):
        assert order(admin, "reload", **headers).status_code == status, headers
    begun = log_in(running)
    with operator(running, "") as browser:
        browser.cookies.set(COOKIE, begun.cookies[COOKIE])
        assert order(browser, "reload").status_code == 403, "a browser says where a request comes from"
        assert order(browser, "reload", origin=own).status_code == 200
    assert admin.get("/operations/reload").status_code == 405


def test_on_this_machine_without_a_token_everybody_reads_and_nobody_is_an_operator(
    raw_agent, start_gateway: StartGateway
) -> None:
    gateway = start_gateway([member(raw_agent(ok).port)])
    with operator(gateway, "") as anybody:
        for path in ("/handoffs", "/conversations", "/members", "/ring", "/policies", "/status"):
            assert anybody.get(path).status_code == 200, path
        told = anybody.get("/session").json()
        assert told["operator"] is False
        assert "neither admin.allow nor admin.tokenFile" in told["why"]
        for path in ORDERS:
            refused = order(anybody, path)
            assert refused.status_code == 403
            assert "neither admin.allow nor admin.tokenFile" in refused.json()["why"]
        for path in ("/debug/tasks", "/debug/profile"):
            assert anybody.get(path).status_code == 403
        assert anybody.post("/session", json={"token": TOKEN}).status_code == 409
        assert anybody.get("/session", headers={"host": "evil.example"}).status_code == 421
    assert "refused to who is no operator: POST /operations/reload" in gateway.log()


def test_a_certificate_makes_an_operator_and_is_named_in_the_log(
    raw_agent, start_gateway: StartGateway, tmp_path: Path
) -> None:
    spec = {"tls": True, "allow": [CODER], **with_token(tmp_path)}
    gateway = start_gateway([member(raw_agent(ok).port)], admin_spec=spec)
    url = f"https://127.0.0.1:{gateway.admin_port}"

    def shows(name: str | None) -> httpx.Client:
        return httpx.Client(base_url=url, verify=client_context(gateway.certs, name), timeout=10, trust_env=False)

    with shows("coder") as coder:
        assert coder.get("/session").json() == {"operator": True, "why": "its certificate is covered by admin.allow"}
        assert order(coder, "members/executor-1/drain").json()["why"].startswith(f"drained by {CODER} at ")
        assert order(coder, "reload", origin="https://evil.example").status_code == 403
    assert f"operator {CODER}: drain executor-1: it is draining" in gateway.log()
    with shows("planner") as planner:
        assert planner.get("/session").json()["operator"] is False
        assert order(planner, "reload").status_code == 403
    with shows(None) as browser:
        assert "Secure" in browser.post("/session", json={"token": TOKEN}).headers["set-cookie"]


def access(tmp_path: Path, now: list[float]) -> Access:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    return Access([parse_principal_pattern(CODER)], file, clock=lambda: now[0])


def bearer(token: str) -> Headers:
    return Headers({"authorization": f"Bearer {token}"})


def test_who_shows_many_wrong_tokens_has_to_wait_and_nobody_else(tmp_path: Path, caplog) -> None:
    now = [100.0]
    guarded = access(tmp_path, now)

    def ask(token: str, address: str) -> Caller | Refused:
        return guarded.judge("GET", "/status", bearer(token), None, address)

    for number in range(MAX_FAILED):
        assert ask(f"wrong-horse-{number}", "10.0.0.1") == Refused(
            401, "this takes a client certificate or a token that is allowed"
        )
    assert caplog.text.count("an admin token from 10.0.0.1 was wrong") == MAX_FAILED
    waits = ask(TOKEN, "10.0.0.1")
    assert isinstance(waits, Refused)
    assert (waits.status, waits.retry_after_s) == (429, WINDOW_S)
    assert isinstance(ask(TOKEN, "10.0.0.2"), Caller)
    coder = Principal(parse_spiffe_id(CODER))
    assert isinstance(guarded.judge("GET", "/status", Headers(), coder, "10.0.0.1"), Caller), "certificates go on"
    now[0] += WINDOW_S
    assert isinstance(ask(TOKEN, "10.0.0.1"), Caller)
    for number in range(MAX_FAILED):
        ask("wrong", f"2001:db8::{number}")
    assert isinstance(ask(TOKEN, "2001:db8::ffff"), Refused), "a network of 64 bits is one address"


def test_a_session_ends_with_its_time_and_with_its_token(tmp_path: Path) -> None:
    now = [0.0]
    guarded = access(tmp_path, now)
    value = guarded.begin("session from here")
    cookie = Headers({"cookie": f"{COOKIE}={value}"})

    def who(headers: Headers = cookie) -> str:
        judged = guarded.judge("GET", "/", headers, None, "10.0.0.1")
        assert isinstance(judged, Caller)
        return judged.operator

    assert who() == "session from here"
    assert who(Headers({"cookie": f"{COOKIE}={value}x"})) == who(Headers({"cookie": f"{COOKIE}="})) == ""
    now[0] = LIFETIME_S - 1
    assert who()
    now[0] = LIFETIME_S
    assert not who()
    cookie = Headers({"cookie": f"{COOKIE}={guarded.begin('again')}"})
    assert who(cookie) == "again"
    (tmp_path / "token").write_text("another-horse-battery-staple")
    assert not who(cookie)
    (tmp_path / "token").unlink()
    assert not who(cookie)


def test_sessions_and_attempts_are_bounded() -> None:
    sessions = Sessions()
    values = [sessions.begin(Session(f"w{number}", b"t"), 0.0) for number in range(MAX_SESSIONS + 1)]
    assert sessions.find(values[0], 1.0) is None
    assert sessions.find(values[1], 1.0) == Session("w1", b"t")
    attempts = Attempts()
    for _ in range(MAX_FAILED):
        attempts.failed("first", 0.0)
    assert attempts.wait_s("first", 1.0) == WINDOW_S - 1
    for number in range(MAX_ADDRESSES):
        attempts.failed(f"a{number}", 1.0)
    assert attempts.wait_s("first", 1.0) == 0
