"""The dashboard for everybody: axe-core finds nothing serious, in light, in dark and on a phone; and it fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.admin.operators import ASKING, asking
from tests.browser.conftest import PHONE, WIDE, LookAt, wait_until_live
from tests.conformance.test_http1 import answer_each
from tests.conftest import CAPABILITY, RawAgent, RunningGateway, launch, member

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

VIEWS = ("live", "members", "conversations", "approvals", "policies", "revisions", "health")
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": WIDE},
    "dark": {"color_scheme": "dark", "viewport": WIDE},
    "phone": {"color_scheme": "light", "viewport": PHONE, "has_touch": True},
}
SHOWN = {
    "live": "#view-live tbody tr >> nth=3",
    "members": "#view-members .ring .member",
    "conversations": "#view-conversations .tree .node",
    "approvals": "#view-approvals tbody tr",
    "policies": "#view-policies .rules tbody tr",
    "revisions": "#view-revisions .history li",
    "health": "#view-health .card >> nth=1",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, certs: Path) -> Iterator[RunningGateway]:
    """With a bit of everything: what was completed, refused, failed and malformed, and members that are not ready."""
    agent = RawAgent(answer_each)
    silent = RawAgent(lambda agent, connection: agent.read_head(connection))
    agents = [
        member(agent.port),
        member(agent.port, "executor-2", trust=0.6, labels={"tier": "sandbox"}),
        member(agent.port, "resting", state="draining"),
        member(silent.port, "broken", capabilities=["tool.break"]),
    ]
    running = launch(tmp_path_factory.mktemp("accessible"), certs, agents, policy=ASKING)
    for who, fields in (
        ("planner", {"flight-conversation": '"talk"', "flight-budget": "tokens=500, hops=3"}),
        ("mallory", {"flight-conversation": '"talk"'}),
        ("coder", {"flight-capability": "tool.break"}),
        ("coder", {"flight-capability": "a;min-trust=2"}),
    ):
        with running.client(who) as client:
            client.post("/run", headers={**CAPABILITY, **fields})
    with asking(running, "costly"):
        yield running
    running.stop()
    agent.close()
    silent.close()


def assert_accessible(page: Any) -> None:
    """Nothing that axe-core finds serious or critical."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    grave = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert not grave, "\n".join(
        f"{each['id']}: {each['help']}: {node['html'][:200]}: {node.get('failureSummary', '')}"
        for each in grave
        for node in each["nodes"][:3]
    )


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
def test_nothing_serious_is_in_the_way_of_anybody(gateway: RunningGateway, look_at: LookAt, look: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    page = look_at(gateway, **LOOKS[look])
    wait_until_live(page)
    for view in VIEWS:
        page.goto(f"{page.url.partition('#')[0]}#{view}")
        page.locator(SHOWN[view]).first.wait_for()
        assert_accessible(page)
    page.goto(f"{page.url.partition('#')[0]}#live")
    page.locator("#view-live tr.is-refused", has_text="denied-by-policy").click()
    page.locator("#packet .considered").first.wait_for()
    assert_accessible(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Sign in").click()
    assert_accessible(page)


def test_nothing_is_wider_than_a_phone(gateway: RunningGateway, look_at: LookAt) -> None:
    page = look_at(gateway, **LOOKS["phone"])
    for view in VIEWS:
        page.goto(f"{page.url.partition('#')[0]}#{view}")
        page.locator(SHOWN[view]).first.wait_for()
        wide = page.evaluate("document.scrollingElement.scrollWidth")
        assert wide <= PHONE["width"], (view, wide)
    page.goto(f"{page.url.partition('#')[0]}#live")
    page.locator("#view-live tr.is-refused", has_text="denied-by-policy").click()
    page.locator("#packet .considered").first.wait_for()
    assert page.evaluate("document.querySelector('#packet').scrollWidth") <= PHONE["width"]


def test_a_screen_reader_finds_its_way(gateway: RunningGateway, look_at: LookAt) -> None:
    page = look_at(gateway)
    expect(page.get_by_role("navigation", name="Views").get_by_role("link")).to_have_count(len(VIEWS))
    expect(page.get_by_role("heading", level=1)).to_have_text("PhoenixFlight gateway")
    for view in VIEWS:
        page.get_by_role("navigation").get_by_role("link", name=view.capitalize()).click()
        expect(page.get_by_role("navigation").locator("[aria-current=page]")).to_contain_text(view.capitalize())
        expect(page.get_by_role("main").get_by_role("heading", level=2)).to_have_count(1)
        for table in page.locator("main table:visible").all():
            expect(table.locator("caption")).not_to_be_empty()
    # Rows are not read out as they come; now and then a count is.
    assert page.locator("tbody[aria-live], tbody [aria-live]").count() == 0
    expect(page.get_by_role("status").filter(has_text=re.compile("handoffs a second|for an approval"))).to_have_count(1)
