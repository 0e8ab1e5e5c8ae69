"""What somebody sees who opens the admin port in a browser."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest

from tests.admin.operators import ASKING, asking
from tests.browser.conftest import LookAt, wait_until_live
from tests.conformance.test_http1 import answer_each
from tests.conftest import (
    CAPABILITY,
    POLICY,
    RawAgent,
    RunningGateway,
    StartGateway,
    member,
    write_agents,
    write_policy,
)
from tests.redis_server import RedisServer
from tests.waiting import eventually

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

TOKEN = "correct-horse-battery-staple"
ROWS = "#view-live tbody tr"


@pytest.fixture
def agent(raw_agent) -> RawAgent:
    return raw_agent(answer_each)


@pytest.fixture
def gateway(agent: RawAgent, start_gateway: StartGateway) -> RunningGateway:
    return start_gateway([member(agent.port)])


def send(gateway: RunningGateway, who: str = "planner", **fields: str) -> httpx.Response:
    """A packet; `fields` are the texts of its ``flight-*`` header fields."""
    headers = {f"flight-{name}": f'"{text}"' for name, text in fields.items()}
    with gateway.client(who) as client:
        return client.post("/run", headers={**CAPABILITY, **headers})


def test_a_handoff_is_seen_within_a_second_of_its_happening(gateway: RunningGateway, look_at: LookAt) -> None:
    page = look_at(gateway)
    wait_until_live(page)
    took = []
    for number in range(3):
        conversation = f"call-{number}"
        send(gateway, conversation=conversation)
        begin = time.monotonic()
        page.locator(ROWS, has_text=conversation).wait_for()
        took.append(time.monotonic() - begin)
    assert min(took) < 1, took  # the machine may be busy with something else once
    row = page.locator(ROWS).first
    for text in ("completed", "200", "agents/planner", "code.execute", "executor-1"):
        expect(row).to_contain_text(text)
    expect(page.locator("#figures")).to_contain_text("Handoffs/s")


def test_what_happened_before_is_there_and_filters_leave_some_of_it(gateway: RunningGateway, look_at: LookAt) -> None:
    send(gateway)
    send(gateway, "mallory")
    send(gateway, "coder", conversation="of-coders")
    page = look_at(gateway)
    expect(page.locator(ROWS)).to_have_count(3)
    page.get_by_label("Outcome").select_option("refused")
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.locator(ROWS)).to_contain_text("quarantine/mallory")
    assert "outcome=refused" in page.url
    wait_until_live(page)
    send(gateway)
    send(gateway, "mallory", conversation="again")
    expect(page.locator(ROWS)).to_have_count(2)
    page.reload()  # a link to what is filtered is as good as the filter
    expect(page.locator(ROWS)).to_have_count(2)
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(ROWS)).to_have_count(5)
    page.get_by_label("From").fill("coder")
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.locator(ROWS)).to_contain_text("of-coders")


def test_a_refused_packet_tells_its_refusal_and_the_rules_behind_it(gateway: RunningGateway, look_at: LookAt) -> None:
    refused = send(gateway, "mallory").json()
    page = look_at(gateway)
    page.locator(ROWS).first.click()
    drawer = page.get_by_role("dialog", name="code.execute")
    for text in ("denied-by-policy", "403", refused["detail"], refused["flight_id"], "quarantined"):
        expect(drawer).to_contain_text(text)
    rules = drawer.get_by_role("region", name="Rules that concern it")
    expect(rules.locator("> ul > li")).to_have_count(1)
    expect(rules).to_contain_text("test / quarantined deny")
    expect(drawer.get_by_role("region", name="Agents")).to_contain_text("executor-1 not eligible")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    page.go_back()  # to the packet
    expect(drawer).to_be_visible()


def test_a_packet_that_could_not_be_read_is_shown_with_why(gateway: RunningGateway, look_at: LookAt) -> None:
    with gateway.client() as client:
        client.post("/run", headers={"flight-capability": "a;min-trust=2"})
    page = look_at(gateway)
    page.locator(ROWS).first.click()
    expect(page.locator("#packet")).to_contain_text("malformed-packet")
    expect(page.locator("#packet")).to_contain_text("min-trust")


def test_with_the_keyboard_alone_a_row_is_reached_and_opened(gateway: RunningGateway, look_at: LookAt) -> None:
    send(gateway, conversation="first")
    send(gateway, "mallory")
    send(gateway, conversation="last")
    page = look_at(gateway)
    expect(page.locator(ROWS)).to_have_count(3)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#view-live tbody') !== null"):
            break
    expect(page.locator(ROWS).nth(0).locator("a")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator(ROWS).nth(1).locator("a")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#packet")).to_contain_text("denied-by-policy")
    page.keyboard.press("Escape")
    expect(page.locator(ROWS).nth(1).locator("a")).to_be_focused()


def test_rows_stand_still_while_paused_and_there_are_never_more_than_200(
    gateway: RunningGateway, look_at: LookAt
) -> None:
    page = look_at(gateway)
    wait_until_live(page)
    page.get_by_role("button", name="Pause").click()
    with gateway.client(http2=True) as client:
        for number in range(230):
            client.post("/run", headers={**CAPABILITY, "flight-conversation": f'"c{number}"'})
    expect(page.locator(".waiting")).to_contain_text("230 new")
    expect(page.locator(ROWS)).to_have_count(0)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(ROWS)).to_have_count(200)
    expect(page.locator(ROWS).first).to_contain_text("c229")


def test_what_a_sender_writes_is_text_and_never_markup(gateway: RunningGateway, look_at: LookAt) -> None:
    markup = "<img src=x onerror=alert(1)>"
    send(gateway, conversation=markup, task=markup)
    page = look_at(gateway)
    expect(page.locator(ROWS)).to_contain_text(markup)
    page.locator(ROWS).click()
    expect(page.locator("#packet")).to_contain_text(markup)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Conversations").click()
    expect(page.locator("#view-conversations .tree h3")).to_contain_text(markup)
    assert page.locator("main img, #packet img").count() == 0


def test_the_ring_is_drawn_anew_when_a_member_joins(agent: RawAgent, gateway: RunningGateway, look_at: LookAt) -> None:
    page = look_at(gateway, "#members")
    ring = page.get_by_role("img", name=re.compile("ring of code.execute"))
    expect(ring).to_have_accessible_name(re.compile("1 members: executor-1 100 %"))
    write_agents(gateway.folder, [member(agent.port), member(agent.port, "executor-2", trust=0.5)])
    expect(ring).to_have_accessible_name(re.compile(r"2 members: executor-1 6\d %, executor-2 3\d %"))
    expect(ring.locator(".member")).to_have_count(2)
    expect(page.get_by_role("row", name="executor-2")).to_contain_text("ready")
    expect(page.locator("#announcer")).to_have_text("executor-2 joined")


def test_a_conversation_is_a_tree_of_parents(gateway: RunningGateway, look_at: LookAt) -> None:
    root = send(gateway, conversation="talk").headers["flight-id"].strip('"')
    child = send(gateway, "coder", conversation="talk", parent=root).headers["flight-id"].strip('"')
    send(gateway, "mallory", conversation="talk", parent=child)
    page = look_at(gateway, "#conversations")
    page.get_by_role("link", name="talk", exact=True).click()
    tree = page.locator("#view-conversations .tree > .nodes")
    expect(tree.locator("> li")).to_have_count(1)
    expect(tree.locator("> li > .nodes > li > .node")).to_contain_text("agents/coder → executor-1")
    expect(tree.locator("> li > .nodes > li > .nodes > li > .node")).to_contain_text("refused")


def test_of_work_that_is_handed_on_the_tree_shows_what_was_reserved_and_whom_it_had_passed_through(
    gateway: RunningGateway, look_at: LookAt
) -> None:
    send(gateway, conversation="talk")
    answer = gateway.admin("/conversations/talk").json()
    lineage = [f"spiffe://mesh.local/ns/agents/sa/{name}" for name in ("planner", "coder")]
    answer["handoffs"][0] |= {"reserved": {"tokens": 1200, "cost": 3}, "lineage": lineage}
    page = look_at(gateway, "#conversations")
    page.route("**/conversations/talk", lambda route: route.fulfill(json=answer))
    page.get_by_role("link", name="talk", exact=True).click()
    tree = page.locator("#view-conversations .tree > .nodes")
    expect(tree).to_contain_text("tokens 1,200, cost 3")
    expect(tree).to_contain_text("agents/planner → agents/coder")


def test_policies_show_what_their_rules_decided_and_what_shadow_ones_would(
    agent: RawAgent, start_gateway: StartGateway, look_at: LookAt
) -> None:
    gateway = start_gateway([member(agent.port)])
    before = gateway.revision()
    nobody = [{"name": "nobody", "effect": "deny", "from": ["spiffe://mesh.local/**"]}]
    spec = {"capabilities": ["*"], "mode": "shadow", "rules": nobody}
    write_policy(gateway.folder, "stricter", {**POLICY, "metadata": {"name": "stricter"}, "spec": spec})
    eventually(lambda: gateway.revision() != before)
    send(gateway)
    send(gateway)
    send(gateway, "mallory")
    page = look_at(gateway, "#policies")
    counts = page.get_by_role("article", name="Policy test").get_by_role("row", name="agents").get_by_role("cell")
    expect(counts).to_have_text([re.compile("allow"), "2", "–", re.compile(r"\d\d:\d\d")])
    stricter = page.get_by_role("article", name="Policy stricter")
    expect(stricter.get_by_role("heading")).to_contain_text("shadow")
    expect(stricter.get_by_role("row", name="nobody").get_by_role("cell").nth(2)).to_have_text("2")


def test_a_reload_that_was_refused_is_told_with_its_problem(gateway: RunningGateway, look_at: LookAt) -> None:
    page = look_at(gateway, "#revisions")
    expect(page.locator("#view-revisions")).to_contain_text("It is what the files say.")
    write_policy(gateway.folder, "test", "kind: TrustPolicy\nrules: [\n")
    expect(page.locator("#view-revisions .history li").first).to_contain_text("test.yaml:", timeout=15_000)
    expect(page.locator("#view-revisions")).to_contain_text("stays as it is")


def test_health_is_told(gateway: RunningGateway, look_at: LookAt) -> None:
    page = look_at(gateway, "#health")
    expect(page.locator("#view-health")).to_contain_text("Ready")
    expect(page.locator("#view-health")).to_contain_text("Overload: normal.")
    expect(page.get_by_role("region", name="Certificates")).to_contain_text("Not after", ignore_case=True)


def test_a_gateway_that_is_gone_is_seen_and_so_is_its_return(gateway: RunningGateway, look_at: LookAt) -> None:
    page = look_at(gateway)
    wait_until_live(page)
    gateway.stop()
    expect(page.get_by_role("status").first).to_have_text("disconnected, trying again")
    gateway.start_again()
    wait_until_live(page)
    send(gateway, conversation="after")
    expect(page.locator(ROWS)).to_contain_text("after")


def test_an_operator_approves_and_denies_with_the_keyboard(
    agent: RawAgent, start_gateway: StartGateway, look_at: LookAt, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    spec = {"tokenFile": str(tmp_path / "token")}
    gateway = start_gateway([member(agent.port)], policy=ASKING, admin_spec=spec)
    page = look_at(gateway, "#approvals")
    sign_in = page.get_by_role("dialog", name="Sign in as operator")
    sign_in.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing waits for an approval.")).to_be_visible()
    rows = page.locator("#view-approvals tbody tr")
    with asking(gateway, "first") as first, asking(gateway, "second") as second:
        expect(rows).to_have_count(2)
        expect(page.get_by_role("link", name="Approvals (2)")).to_be_visible()
        row = rows.filter(has_text="packet first")
        for text in ("agents/local", "code.execute", "test / costly", "costs money", "executor-1", "task buy"):
            expect(row).to_contain_text(text)
        row.get_by_role("button", name="Approve code.execute of first", exact=True).focus()
        page.keyboard.press("Enter")
        assert first.recv(12) == b"HTTP/1.1 200"
        expect(rows).to_have_count(1)
        expect(page.get_by_label("Why, for code.execute of second")).to_be_focused()
        page.keyboard.type("too dear")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        answer = second.recv(65536)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"too dear" in answer
    expect(page.get_by_text("Nothing waits for an approval.")).to_be_visible()
    assert "denied by session from 127.0.0.1" in gateway.handoff(flight_id="second")["approval"]


def test_who_has_no_token_sees_nothing_and_an_operator_drains_a_member(
    agent: RawAgent, start_gateway: StartGateway, tmp_path: Path, look_at: LookAt
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    agents = [member(agent.port), member(agent.port, "executor-2")]
    gateway = start_gateway(agents, admin_spec={"tokenFile": str(tmp_path / "token")})
    page = look_at(gateway, "#members")
    sign_in = page.get_by_role("dialog", name="Sign in as operator")
    sign_in.get_by_label("Token").fill("not the token of it")
    sign_in.get_by_role("button", name="Sign in").click()
    expect(sign_in.get_by_role("alert")).to_contain_text("not the token")
    expect(page.locator("#view-members tbody tr")).to_have_count(0)
    sign_in.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(sign_in).to_be_hidden()
    wait_until_live(page)

    page.get_by_role("button", name="Drain executor-2").click()
    page.get_by_role("dialog", name="Drain executor-2?").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("row", name="executor-2")).to_contain_text("ready")
    page.get_by_role("button", name="Drain executor-2").click()
    page.get_by_role("dialog", name="Drain executor-2?").get_by_role("button", name="Drain").click()
    expect(page.get_by_role("row", name="executor-2")).to_contain_text("draining")
    expect(page.locator("#view-members .ring .member")).to_have_count(1)
    assert {send(gateway, conversation=f"c{number}").headers["flight-agent"] for number in range(8)} == {'"executor-1"'}

    page.get_by_role("button", name="Restore executor-2").click()
    page.get_by_role("dialog").get_by_role("button", name="Restore").click()
    expect(page.locator("#view-members .ring .member")).to_have_count(2)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Drain executor-1")).to_be_hidden()


def test_an_operator_reloads_and_reads_why_not(
    agent: RawAgent, start_gateway: StartGateway, tmp_path: Path, look_at: LookAt
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    gateway = start_gateway([member(agent.port)], admin_spec={"tokenFile": str(tmp_path / "token")})
    page = look_at(gateway, "#revisions", extra_http_headers={"authorization": f"Bearer {TOKEN}"})
    write_policy(gateway.folder, "test", "kind: TrustPolicy\nrules: [\n")
    page.get_by_role("button", name="Reload now").click()
    page.get_by_role("dialog", name="Reload?").get_by_role("button", name="Reload").click()
    expect(page.locator("#toast")).to_contain_text("test.yaml:")


def test_several_workers_are_seen_as_one_gateway(
    agent: RawAgent, start_gateway: StartGateway, redis: RedisServer, look_at: LookAt
) -> None:
    gateway = start_gateway([member(agent.port)], workers=2, redis={"url": redis.url})
    page = look_at(gateway)
    wait_until_live(page)
    for number in range(6):  # each on a connection of its own, so that both have some
        send(gateway, conversation=f"call-{number}")
    expect(page.locator(ROWS)).to_have_count(6)
    page.get_by_role("link", name="Revisions").click()
    expect(page.locator("#view-revisions")).to_contain_text("It is what the files say.")
    page.get_by_role("link", name="Health").click()
    expect(page.get_by_role("region", name="Worker 1: Process")).to_be_visible()
