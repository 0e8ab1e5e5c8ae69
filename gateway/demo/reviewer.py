"""Judges a program by its code and what it printed.  Capability: ``code.review``; plain JSON over h2c.

It asks an MCP tool through the gateway.  It would like to run the program again as well: no policy lets it, so
it says why and judges without.
"""

from __future__ import annotations

from functools import partial

import httpx
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.demo.peer import TIMEOUT_S, Packet, Settings, client_tls, create_app, raise_for_problem, serve_http2


async def lint(code: str, packet: Packet, settings: Settings) -> list[str]:
    """The findings of whichever MCP server offers ``tool.lint``."""
    async with (
        httpx2.AsyncClient(
            verify=client_tls(settings),
            http2=True,
            headers=packet.onward("tool.lint"),
            timeout=TIMEOUT_S,
            trust_env=False,
        ) as http,
        Client(streamable_http_client(f"{settings.gateway}/mcp", http_client=http)) as tools,
    ):
        result = await tools.call_tool("lint", {"code": code})
    if not isinstance(result, CallToolResult) or result.structured_content is None:
        raise RuntimeError(f"the lint tool gave no findings: {result}")
    return [str(finding) for finding in result.structured_content["result"]]


async def rerun(code: str, packet: Packet, gateway: httpx.AsyncClient) -> str:
    """Try to have the code run again; what became of it, in words."""
    response = await gateway.post(
        "/run", json={"code": code, "review": False}, headers=packet.onward("code.execute, lang.python")
    )
    try:
        await raise_for_problem(response)
    except httpx.HTTPStatusError as error:
        return f"not run again. {error}"
    return f"run again, it printed {response.json()['output']}"


async def review(request: Request, settings: Settings) -> JSONResponse:
    """``POST /review`` with ``{"code", "output"}``: ``{"verdict", "remarks"}``."""
    evidence = await request.json()
    packet = Packet.received(request.headers)
    findings = await lint(evidence["code"], packet, settings)
    second_run = await rerun(evidence["code"], packet, request.state.gateway)
    verdict = "approved" if evidence["output"] and not findings else "changes requested"
    return JSONResponse({"verdict": verdict, "remarks": [*(findings or ["lint: no findings"]), second_run]})


if __name__ == "__main__":
    here = Settings.from_environment()
    routes = [Route("/review", partial(review, settings=here), methods=["POST"])]
    serve_http2(create_app(routes, here), here, tls=False)
