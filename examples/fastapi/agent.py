"""An agent in FastAPI.  It is asked for `text.report`, and hands the counting on to whoever has `text.count`.

    uvicorn --app-dir examples/fastapi --port 7203 agent:app

FLIGHT_GATEWAY is the gateway; FLIGHT_CERT, FLIGHT_KEY and FLIGHT_CA are files: who we are, and whom we believe.
"""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import FastAPI, Header, HTTPException, Request
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """One client for the gateway, for as long as the agent runs."""
    context = ssl.create_default_context(cafile=os.environ.get("FLIGHT_CA", "certs/ca.pem"))
    context.load_cert_chain(
        os.environ.get("FLIGHT_CERT", "certs/reporter.pem"), os.environ.get("FLIGHT_KEY", "certs/reporter-key.pem")
    )
    address = os.environ.get("FLIGHT_GATEWAY", "https://127.0.0.1:8443")
    async with httpx.AsyncClient(base_url=address, verify=context, timeout=30, trust_env=False) as gateway:
        yield {"gateway": gateway}


app = FastAPI(lifespan=lifespan)


class Text(BaseModel):
    """What is asked."""

    text: str


class Packet(BaseModel):
    """What the gateway says of the packet.  The values stand as they do on the wire, and are passed on so."""

    flight_id: str
    flight_from: str
    flight_conversation: str = ""
    flight_task: str = ""
    flight_timeout: str = ""
    traceparent: str = ""

    def onward(self, capability: str) -> dict[str, str]:
        """The headers of a packet that is born from this one."""
        headers = {
            "flight-capability": capability,
            "flight-parent": self.flight_id,
            "flight-conversation": self.flight_conversation,
            "flight-task": self.flight_task,
            "flight-timeout": self.flight_timeout,  # what the gateway has left of it
            "traceparent": self.traceparent,
        }
        return {name: value for name, value in headers.items() if value}


@app.post("/report")
async def report(body: Text, request: Request, packet: Annotated[Packet, Header()]) -> dict[str, object]:
    """Count by way of another agent, and write a sentence about it."""
    counted = await request.state.gateway.post("/count", json={"text": body.text}, headers=packet.onward("text.count"))
    if counted.is_error:
        # The gateway's refusal, or the other agent's error, in words.
        raise HTTPException(502, detail=counted.text)
    return {"report": f"{counted.json()['words']} words", "for": packet.flight_from.strip('"')}
