"""Asks an admin port how its gateway is: a probe, which loads next to nothing, for it is run every few seconds."""

from __future__ import annotations

import argparse
import http.client
import ssl
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

DEFAULT_ADMIN = "http://127.0.0.1:9901"
TIMEOUT_S = 3.0
MAX_TOLD_BYTES = 4096
"""Of an answer."""


def ask(admin: str, path: str, timeout_s: float) -> tuple[bool, str]:
    """Whether the answer of `path` is 200, and its text, or why there is none.

    Args:
        admin: the port's URL.
        path: what is asked.
        timeout_s: to connect, and between two pieces of the answer.

    Raises:
        ValueError: `admin` is no URL.

    """
    url = urlsplit(admin)
    if url.scheme not in ("http", "https") or url.hostname is None:
        raise ValueError(f"expected a URL such as {DEFAULT_ADMIN}, not {admin[:80]!r}")
    host, port = url.hostname, url.port
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    if url.scheme == "https":
        # As the kubelet does it: nothing secret is sent, and nothing but yes or no is believed.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(MAX_TOLD_BYTES).decode("utf-8", "replace").strip()
        return answer.status == http.client.OK, text or str(answer.status)
    except (OSError, http.client.HTTPException) as error:
        return False, f"{admin}{path}: {error or type(error).__name__}"
    finally:
        connection.close()


def main(arguments: Sequence[str]) -> int:
    """``phoenixflight health``: 0 when the gateway is well, 1 when it is not, 2 when the arguments make no sense."""
    parser = argparse.ArgumentParser(
        prog="phoenixflight health",
        description="Ask a gateway's admin port whether it should be sent packets.  Exit 0: yes.  1: no, and why.",
    )
    parser.add_argument("--admin", default=DEFAULT_ADMIN, metavar="URL", help="default: %(default)s")
    parser.add_argument("--live", action="store_true", help="ask whether the process runs (/healthz), not /readyz")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS", help="default: %(default)g")
    given = parser.parse_args(arguments)
    try:
        well, told = ask(given.admin.rstrip("/"), "/healthz" if given.live else "/readyz", given.timeout)
    except ValueError as error:
        parser.error(str(error))
    print(told, file=sys.stdout if well else sys.stderr)
    return 0 if well else 1
