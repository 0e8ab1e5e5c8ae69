"""An MCP client that calls a tool by way of the gateway, whichever server has it.

FLIGHT_GATEWAY is the gateway; FLIGHT_CERT, FLIGHT_KEY and FLIGHT_CA are files: who we are, and whom we believe.
"""

import asyncio
import os
import ssl
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(text: str) -> None:
    """Have the words of `text` counted."""
    context = ssl.create_default_context(cafile=os.environ.get("FLIGHT_CA", "certs/ca.pem"))
    context.load_cert_chain(
        os.environ.get("FLIGHT_CERT", "certs/caller.pem"), os.environ.get("FLIGHT_KEY", "certs/caller-key.pem")
    )
    gateway = os.environ.get("FLIGHT_GATEWAY", "https://127.0.0.1:8443")
    # No conversation is named: requests of one MCP session stay together by mcp-session-id.
    headers = {"flight-capability": "tool.count"}
    async with (
        httpx2.AsyncClient(verify=context, headers=headers, timeout=30, trust_env=False) as http,
        Client(streamable_http_client(f"{gateway}/mcp", http_client=http)) as tools,
    ):
        result = await tools.call_tool("count", {"text": text})
        print(result.structured_content["result"], "words")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "work that is handed on"))
