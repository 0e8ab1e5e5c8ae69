"""The documentation as a site: every page is in the navigation, no link leads nowhere, nothing comes from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']?([^"'\s>]+)|<link\b([^>]*)>|url\(["']?([^"')]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning fails it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        for script, link, url in LOADED.findall(path.read_text(encoding="utf-8")):
            rel = re.search(r'rel="?([\w-]+)', link)
            href = re.search(r'href="?([^"\s>]+)', link)
            loads = href[1] if href and rel and rel[1] in ("stylesheet", "preload", "icon", "preconnect") else ""
            for source in (script, loads, url):
                assert not source.startswith(("http:", "https:", "//")), f"{path.name}: {source}"


def test_the_search_knows_the_pages_and_runs_without_a_server(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    places = {entry["location"] for entry in json.loads(index.removeprefix("var __index = "))["docs"]}
    assert {"quickstart.html", "runbook.html#phoenixflightdown", "troubleshooting.html#refusals"} <= places
    assert not [place for place in places if place.startswith("source/gateway")], "sources are not searched"
    assert 'src="assets/iframe-worker.js"' in (site / "index.html").read_text(encoding="utf-8")


def test_links_into_the_sources_lead_to_pages_that_show_them(site: Path) -> None:
    assert 'href="source/gateway/decision.py.html"' in (site / "architecture.html").read_text(encoding="utf-8")
    assert "def decide" in re.sub(
        r"<[^>]+>", "", (site / "source/gateway/decision.py.html").read_text(encoding="utf-8")
    )
