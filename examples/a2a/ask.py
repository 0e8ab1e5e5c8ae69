"""An A2A client (a2a-sdk): it reads the agent's card and sends a streaming message, all by way of the gateway.

FLIGHT_GATEWAY is the gateway; FLIGHT_CERT, FLIGHT_KEY and FLIGHT_CA are files: who we are, and whom we believe.
"""

import asyncio
import os
import ssl
import sys

import httpx
from a2a.client import ClientConfig, create_client
from a2a.helpers import get_artifact_text, get_message_text, new_text_message
from a2a.types import Role, SendMessageRequest


async def main(text: str) -> None:
    """Have `text` summed up, and show what is said meanwhile."""
    context = ssl.create_default_context(cafile=os.environ.get("FLIGHT_CA", "certs/ca.pem"))
    context.load_cert_chain(
        os.environ.get("FLIGHT_CERT", "certs/caller.pem"), os.environ.get("FLIGHT_KEY", "certs/caller-key.pem")
    )
    gateway = os.environ.get("FLIGHT_GATEWAY", "https://127.0.0.1:8443")
    # The SDK knows nothing of the gateway: the headers are those of the client that it is given.
    headers = {"flight-capability": "agent.summary", "flight-conversation": '"a2a-1"'}
    async with httpx.AsyncClient(verify=context, headers=headers, timeout=30, trust_env=False) as http:
        client = await create_client(gateway, ClientConfig(httpx_client=http))
        request = SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER))
        async for event in client.send_message(request):
            if event.HasField("status_update") and event.status_update.status.HasField("message"):
                print(get_message_text(event.status_update.status.message))
            elif event.HasField("artifact_update"):
                print("summary:", get_artifact_text(event.artifact_update.artifact))


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "work that is handed on, to whoever can do it"))
