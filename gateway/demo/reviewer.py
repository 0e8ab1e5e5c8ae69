"""Judges a program by its code and what it printed.  Capability: ``code.review``; plain JSON over HTTP/2 mTLS.

It asks an MCP tool through the gateway.  It would like to run the program again, and to have a second opinion: no
policy lets it run anything, and the only reviewer there is has seen the work already, which is itself.  So it says why,
and judges without.
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

from gateway.agent import Arrival
from gateway.demo.peer import TIMEOUT_S, Settings, client_tls, create_app, raise_for_problem, serve_http2

TOOL_BUDGET = {"tokens": 20, "cost": 1}
"""Of each request to a tool, of which MCP makes several at a time: who names no part asks for all that is left."""


async def lint(code: str, packet: Arrival, settings: Settings) -> list[str]:
    """The findings of whichever MCP server offers ``tool.lint``."""
    async with (
        httpx2.AsyncClient(
            verify=client_tls(settings),
            http2=True,
            headers=packet.headers("tool.lint", budget=TOOL_BUDGET),
            timeout=TIMEOUT_S,
            trust_env=False,
        ) as http,
        Client(streamable_http_client(f"{settings.gateway}/mcp", http_client=http)) as tools,
    ):
        result = await tools.call_tool("lint", {"code": code})
    if not isinstance(result, CallToolResult) or result.structured_content is None:
        raise RuntimeError(f"the lint tool gave no findings: {result}")
    return [str(finding) for finding in result.structured_content["result"]]


async def rerun(code: str, packet: Arrival, gateway: httpx.AsyncClient) -> str:
    """Try to have the code run again; what became of it, in words."""
    onward = packet.onward(gateway)
    response = await onward.post("code.execute, lang.python", "/run", json={"code": code, "review": False})
    try:
        await raise_for_problem(response)
    except httpx.HTTPStatusError as error:
        return f"not run again. {error}"
    return f"run again, it printed {response.json()['output']}"


async def second_opinion(evidence: dict[str, str], packet: Arrival, gateway: httpx.AsyncClient) -> str:
    """Try to have it reviewed by somebody else; what became of it, in words."""
    response = await packet.onward(gateway).post("code.review", "/review", json=evidence)
    try:
        await raise_for_problem(response)
    except httpx.HTTPStatusError as error:
        return f"no second opinion. {error}"
    return f"a second opinion: {response.json()['verdict']}"


async def review(request: Request, settings: Settings) -> JSONResponse:
    """``POST /review`` with ``{"code", "output"}``: ``{"verdict", "remarks"}``."""
    evidence = await request.json()
    packet = Arrival.received(request.headers)
    findings = await lint(evidence["code"], packet, settings)
    second_run = await rerun(evidence["code"], packet, request.state.gateway)
    second_words = await second_opinion(evidence, packet, request.state.gateway)
    verdict = "approved" if evidence["output"] and not findings else "changes requested"
    remarks = [*(findings or ["lint: no findings"]), second_run, second_words]
    read = len(evidence["code"].split())
    return JSONResponse({"verdict": verdict, "remarks": remarks}, headers=packet.usage(tokens=read))


if __name__ == "__main__":
    here = Settings.from_environment()
    routes = [Route("/review", partial(review, settings=here), methods=["POST"])]
    serve_http2(create_app(routes, here), here, tls=True)
