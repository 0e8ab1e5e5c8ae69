"""An agent in aiohttp that counts words.  It listens with mTLS, and lets nobody in but the gateway.

FLIGHT_LISTEN is its address; FLIGHT_CERT, FLIGHT_KEY and FLIGHT_CA are files: who we are, and whom we believe.
"""

import os
import ssl

from aiohttp import web

GATEWAY = ("URI", "spiffe://mesh.local/ns/phoenixflight/sa/gateway")


@web.middleware
async def only_the_gateway(request, handler):
    """Refuse whoever has a certificate of the mesh and is not the gateway: it would come past the policies."""
    certificate = request.get_extra_info("peercert") or {}
    if GATEWAY not in certificate.get("subjectAltName", ()):
        raise web.HTTPForbidden(text="only the gateway may ask this agent\n")
    return await handler(request)


async def count(request: web.Request) -> web.Response:
    """`POST /count` with `{"text"}`: `{"words", "for"}`."""
    text = (await request.json())["text"]
    # The gateway vouches for flight-from: it is the caller's SPIFFE id, by its certificate.
    return web.json_response({"words": len(text.split()), "for": request.headers["flight-from"].strip('"')})


def main() -> None:
    """Serve until told to stop."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=os.environ.get("FLIGHT_CA", "certs/ca.pem"))
    context.load_cert_chain(
        os.environ.get("FLIGHT_CERT", "certs/counter.pem"), os.environ.get("FLIGHT_KEY", "certs/counter-key.pem")
    )
    context.verify_mode = ssl.CERT_REQUIRED
    host, _, port = os.environ.get("FLIGHT_LISTEN", "127.0.0.1:7201").rpartition(":")
    app = web.Application(middlewares=[only_the_gateway])
    app.add_routes([web.post("/count", count)])
    web.run_app(app, host=host, port=int(port), ssl_context=context, print=None)


if __name__ == "__main__":
    main()
