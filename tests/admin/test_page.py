"""The dashboard's files, as a browser gets them; what it makes of them is in tests/browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.admin import page

FOLDER = Path(page.__file__).with_name("page")


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=page.routes()))


def test_every_file_that_the_page_names_is_there_and_of_its_type(client: TestClient) -> None:
    index = client.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:src|href)="(page/[^"]+)"', index.text))
    code = "".join(file.read_text() for file in FOLDER.glob("*.js"))
    modules = {f"page/{name}" for name in re.findall(r'from "\./(.+?)"', code)}
    assert named
    assert modules
    types = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
    for path in named | modules:
        answer = client.get(f"/{path}")
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == types[path.rpartition(".")[2]]
    assert {f"page/{file.name}" for file in FOLDER.iterdir()} == named | modules | {"page/index.html"}


def test_nothing_else_is_served(client: TestClient) -> None:
    for path in ("/page/index.html", "/page/..%2fpage.py", "/page/%2e%2e/page.py", "/page/page.py", "/page/none.js"):
        assert client.get(path).status_code == 404, path


def test_no_file_may_load_anything_from_elsewhere_or_hold_inline_code(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert allowed.pop("img-src") == "'self' data:"
    assert {name: allowed.pop(name) for name in ("script-src", "style-src", "connect-src")} == dict.fromkeys(
        ("script-src", "style-src", "connect-src"), "'self'"
    )
    assert set(allowed.values()) == {"'none'"}
    assert client.get("/page/page.js").headers["content-security-policy"] == policy
    text = client.get("/").text
    assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", text) == []
    dangerous = re.compile(r"https?://[^\s\"']+|innerHTML|insertAdjacentHTML|document\.write|\beval\(")
    for file in FOLDER.iterdir():
        assert set(dangerous.findall(file.read_text())) <= {"http://www.w3.org/2000/svg"}, file.name


def test_a_browser_keeps_files_and_asks_whether_they_are_still_the_same(client: TestClient) -> None:
    first = client.get("/page/style.css")
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    again = client.get("/page/style.css", headers={"if-none-match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/page/style.css", headers={"if-none-match": '"other"'}).status_code == 200
    assert client.head("/").content == b""
