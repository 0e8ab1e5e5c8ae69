"""Runs a short Python program.  Capabilities: ``code.execute``, ``lang.python``; plain JSON over HTTP/1.1 mTLS.

Asked for a review, it hands a program that ran through on by itself, with what it printed: whoever wrote the
code has no chance to embellish the evidence.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.agent import Arrival
from gateway.demo.peer import Settings, create_app, raise_for_problem, serve_http1

TIME_LIMIT_S = 5.0
REVIEW_BUDGET = {"tokens": 200, "cost": 2}
"""Of what a run was given; the rest is its own."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a program ended."""

    ok: bool
    output: str
    """What it printed, or the last line of its error."""


async def execute(code: str) -> Run:
    """Run `code` in an interpreter of its own: no site packages, an empty environment, a time limit.

    That keeps a demo tidy.  It is not a sandbox: a real executor needs one around it.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", code),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env={},
        )
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                printed, complaint = await process.communicate()
        except TimeoutError:
            return Run(ok=False, output=f"stopped after {TIME_LIMIT_S:g} s")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode != 0:
        return Run(ok=False, output=complaint.decode().strip().rpartition("\n")[2])
    return Run(ok=True, output=printed.decode().strip())


async def run(request: Request) -> JSONResponse:
    """``POST /run`` with ``{"code", "review"}``: ``{"ok", "output"}``, and, asked for one, a ``review`` if it is ok."""
    packet = Arrival.received(request.headers)
    asked = await request.json()
    code = asked["code"]
    result = await execute(code)
    answer = {"ok": result.ok, "output": result.output}
    if result.ok and asked["review"]:
        gateway: httpx.AsyncClient = request.state.gateway
        evidence = {"code": code, "output": result.output}
        response = await packet.onward(gateway).post("code.review", "/review", budget=REVIEW_BUDGET, json=evidence)
        await raise_for_problem(response)
        answer["review"] = response.json()
    return JSONResponse(answer, headers=packet.usage(cost=1))


ROUTES = [Route("/run", run, methods=["POST"])]

if __name__ == "__main__":
    here = Settings.from_environment()
    serve_http1(create_app(ROUTES, here), here, tls=True)
