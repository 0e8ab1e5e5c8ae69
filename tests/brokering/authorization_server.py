"""An OAuth 2.0 authorization server of a test's own: Starlette on uvicorn, tokens signed by joserfc."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import uvicorn
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.brokering.request import GRANT_TYPE
from tests.waiting import eventually, free_port


class AuthorizationServer:
    """Gives tokens to one client, by the client credentials grant and by token exchange."""

    def __init__(self) -> None:
        self.client_id, self.secret = "gate way", "s3cret:/+%"
        self.key = OKPKey.generate_key("Ed25519")
        self.trusted: OKPKey | None = None
        """Whose assertions it exchanges."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/token"
        self.asked: list[dict[str, str]] = []
        """The forms that came."""
        self.issued: list[str] = []
        self.delay_s = 0.0
        self.life_s = 300
        self.broken = False

    async def token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(), strict_parsing=True))
        self.asked.append(form)
        await asyncio.sleep(self.delay_s)
        if self.broken:
            return Response("down", 503)
        user, _, password = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).partition(b":")
        if (unquote_plus(user.decode()), unquote_plus(password.decode())) != (self.client_id, self.secret):
            return JSONResponse({"error": "invalid_client"}, 401)
        claims: dict[str, Any] = {"iss": self.url, "sub": self.client_id}
        if form["grant_type"] == GRANT_TYPE:
            try:
                assert self.trusted is not None
                shown = jwt.decode(form["subject_token"], self.trusted, algorithms=["EdDSA"]).claims
                jwt.JWTClaimsRegistry(aud={"essential": True, "value": self.url}).validate(shown)
            except JoseError:
                return JSONResponse({"error": "invalid_request"}, 400)
            claims |= {"sub": shown["sub"], "act": shown["act"]}
        elif form["grant_type"] != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        if form.get("audience") == "https://nowhere.example":
            return JSONResponse({"error": "invalid_target"}, 400)
        claims |= {"aud": form.get("audience", ""), "exp": int(time.time()) + self.life_s, "n": len(self.issued)}
        token = jwt.encode({"alg": "Ed25519"}, claims, self.key, algorithms=["Ed25519"])
        self.issued.append(token)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.life_s}
        return JSONResponse({**answer, "scope": form.get("scope", "")})

    def claims(self, token: str) -> dict[str, Any]:
        """Of a token of its own."""
        return dict(jwt.decode(token, self.key, algorithms=["Ed25519"]).claims)


@contextmanager
def authorization_server() -> Iterator[AuthorizationServer]:
    """One that runs."""
    server = AuthorizationServer()
    app = Starlette(routes=[Route("/token", server.token, methods=["POST"])])
    running = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", server.port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        eventually(lambda: running.started)
        yield server
    finally:
        running.should_exit = True
        thread.join(5)
