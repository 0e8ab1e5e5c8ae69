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

from gateway.demo.peer import Packet, Settings, create_app, raise_for_problem, serve_http1

TIME_LIMIT_S = 5.0


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
    asked = await request.json()
    code = asked["code"]
    result = await execute(code)
    answer = {"ok": result.ok, "output": result.output}
    if result.ok and asked["review"]:
        packet = Packet.received(request.headers)
        gateway: httpx.AsyncClient = request.state.gateway
        response = await gateway.post(
            "/review", json={"code": code, "output": result.output}, headers=packet.onward("code.review")
        )
        await raise_for_problem(response)
        answer["review"] = response.json()
    return JSONResponse(answer)


ROUTES = [Route("/run", run, methods=["POST"])]

if __name__ == "__main__":
    here = Settings.from_environment()
    serve_http1(create_app(ROUTES, here), here, tls=True)
