"""An MCP server (streamable HTTP) behind the gateway: capability `tool.count`.

FLIGHT_LISTEN is its address, on loopback.
"""

import os

import uvicorn
from mcp.server.mcpserver import MCPServer

tools = MCPServer("counter", log_level="WARNING")


@tools.tool()
def count(text: str) -> int:
    """How many words there are in a text."""
    return len(text.split())


if __name__ == "__main__":
    host, _, port = os.environ.get("FLIGHT_LISTEN", "127.0.0.1:7205").rpartition(":")
    uvicorn.run(
        tools.streamable_http_app(), host=host, port=int(port), log_level="warning", timeout_graceful_shutdown=1
    )
