"""A caller in aiohttp: a client certificate, and one header.

FLIGHT_GATEWAY is the gateway; FLIGHT_CERT, FLIGHT_KEY and FLIGHT_CA are files: who we are, and whom we believe.
"""

import asyncio
import os
import ssl
import sys

import aiohttp


async def main(text: str) -> None:
    """Have the words of `text` counted."""
    context = ssl.create_default_context(cafile=os.environ.get("FLIGHT_CA", "certs/ca.pem"))
    context.load_cert_chain(
        os.environ.get("FLIGHT_CERT", "certs/caller.pem"), os.environ.get("FLIGHT_KEY", "certs/caller-key.pem")
    )
    gateway = os.environ.get("FLIGHT_GATEWAY", "https://127.0.0.1:8443")
    headers = {"flight-capability": "text.count", "flight-conversation": '"aiohttp-1"'}
    async with (
        aiohttp.ClientSession(gateway, headers=headers, connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.post("/count", json={"text": text}) as answer,
    ):
        # A refusal is application/problem+json; its detail says what to change.
        body = await answer.json(content_type=None)
        if not answer.ok:
            sys.exit(f"refused: {body['title']}: {body['detail']}")
        print(body["words"], "words, counted by", answer.headers["flight-agent"])


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "work that is handed on"))
