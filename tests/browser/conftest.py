"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import RunningGateway

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}

LookAt = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: Playwright keeps an event loop of its own running, in which no other test could have one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        # Tests may run as root, and in containers with little shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture
def look_at(browser: Browser) -> Iterator[LookAt]:
    """Opens a gateway's dashboard, and sees to it that its scripts never failed and kept within its policy."""
    contexts = []
    wrong: list[str] = []

    def open_(gateway: RunningGateway, view: str = "", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        page.goto(f"http://127.0.0.1:{gateway.admin_port}/{view}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


def wait_until_live(page: Page) -> None:
    """Wait until the stream is there."""
    page.locator("#link[data-state=live]").wait_for()
