"""A caller in httpx: a client certificate, and one header.

FLIGHT_GATEWAY is the gateway; FLIGHT_CERT, FLIGHT_KEY and FLIGHT_CA are files: who we are, and whom we believe.
"""

import os
import ssl
import sys

import httpx


def client() -> httpx.Client:
    """A client that shows our certificate and believes the mesh's roots alone."""
    context = ssl.create_default_context(cafile=os.environ.get("FLIGHT_CA", "certs/ca.pem"))
    context.load_cert_chain(
        os.environ.get("FLIGHT_CERT", "certs/caller.pem"), os.environ.get("FLIGHT_KEY", "certs/caller-key.pem")
    )
    return httpx.Client(
        base_url=os.environ.get("FLIGHT_GATEWAY", "https://127.0.0.1:8443"),
        verify=context,
        timeout=30,
        trust_env=False,  # a proxy for the Internet has no place between an agent and its gateway
    )


def main() -> int:
    """Have the words of each argument counted, all in one conversation."""
    with client() as gateway:
        for text in sys.argv[1:] or ["work that is handed on"]:
            answer = gateway.post(
                "/count",
                json={"text": text},
                headers={
                    "flight-capability": "text.count",
                    "flight-conversation": '"httpx-1"',  # a string of structured fields: with quotes
                    "flight-timeout": "10000",  # ms, for the whole way
                },
            )
            if answer.headers["content-type"] == "application/problem+json":
                problem = answer.json()
                print(f"refused: {problem['title']}: {problem['detail']}", file=sys.stderr)
                return 1
            answer.raise_for_status()
            print(answer.json()["words"], "words, counted by", answer.headers["flight-agent"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
