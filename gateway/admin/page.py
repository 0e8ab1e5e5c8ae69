"""The dashboard: one page, with its style, its icon and its modules, from the files of the folder ``page``."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS = {
    # Kept, but asked for again by its tag: the page of a new gateway is never made of an old one's files.
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of each file: nothing of another origin, no inline script or style, nobody's frame."""


class _File(NamedTuple):
    body: bytes
    headers: dict[str, str]

    def answer(self, request: Request) -> Response:
        # RFC 9110 section 13.1.2: a list, compared weakly.
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if not known.isdisjoint(("*", self.headers["etag"])):
            return Response(status_code=304, headers=self.headers)
        return Response(self.body, headers=self.headers)


def _read() -> dict[str, _File]:
    found = {}
    for file in files("gateway.admin").joinpath("page").iterdir():
        media_type = _TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            body = file.read_bytes()
            tag = f'"{sha256(body).hexdigest()[:16]}"'
            found[file.name] = _File(body, {**HEADERS, "content-type": media_type, "etag": tag})
    return found


def routes() -> list[Route]:
    """``/``, the page, and ``/page/NAME``, its files; they are read once, now."""
    read = _read()
    index = read.pop("index.html")

    async def page(request: Request) -> Response:
        return index.answer(request)

    async def part(request: Request) -> Response:
        file = read.get(request.path_params["name"])
        return file.answer(request) if file is not None else PlainTextResponse("no such file\n", status_code=404)

    return [Route("/", page), Route("/page/{name}", part)]
