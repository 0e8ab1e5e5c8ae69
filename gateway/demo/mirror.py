"""Answers with the header fields that it got.  Capability: ``debug.mirror``; plain JSON over HTTP/1.1 mTLS.

What people write to find a mistake, and leave running: whoever may ask it learns the credential that it was given.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.demo.peer import Settings, create_app, serve_http1


async def mirror(request: Request) -> JSONResponse:
    """``GET /``: the fields, as they came."""
    return JSONResponse(dict(request.headers))


ROUTES = [Route("/", mirror)]

if __name__ == "__main__":
    here = Settings.from_environment()
    serve_http1(create_app(ROUTES, here), here, tls=True)
