"""AWS Signature Version 4 of a request to S3.  Sans-IO.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import configparser
import hmac
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote


class Credentials(NamedTuple):
    """Who signs."""

    access_key: str
    secret_key: str
    session_token: str = ""


def load_credentials(path: Path) -> Credentials:
    """The profile ``default`` of a file in the format of AWS's shared credentials.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no such profile, or the profile lacks a key; nothing of what it says is told.

    """
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        profile = parser["default"]
        found = Credentials(profile["aws_access_key_id"], profile["aws_secret_access_key"])
    except (configparser.Error, KeyError, UnicodeDecodeError):
        message = "expected [default] with aws_access_key_id and aws_secret_access_key"
        raise ValueError(f"{path}: {message}") from None
    return found._replace(session_token=profile.get("aws_session_token", ""))


def canonical_query(query: Mapping[str, str]) -> str:
    """The query as it is signed, and sent."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))


def signed_headers(
    method: str,
    host: str,
    path: str,
    query: Mapping[str, str],
    body: bytes,
    region: str,
    credentials: Credentials,
    now: datetime,
    more: Mapping[str, str] = {},
) -> dict[str, str]:
    """The header fields that sign a request, and those that they cover, but ``host``.

    Args:
        method: of the request.
        host: its authority.
        path: percent-encoded, as it is sent.
        query: its parameters, before they are encoded.
        body: all of it.
        region: of the service.
        credentials: who signs.
        now: in UTC.
        more: other header fields to cover, names in lower case.

    """
    stamp, digest = now.strftime("%Y%m%dT%H%M%SZ"), sha256(body).hexdigest()
    headers = {**more, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    if credentials.session_token:
        headers["x-amz-security-token"] = credentials.session_token
    covered = sorted({**headers, "host": host}.items())
    names = ";".join(name for name, _ in covered)
    lines = "".join(f"{name}:{value.strip()}\n" for name, value in covered)
    canonical = "\n".join((method, path, canonical_query(query), lines, names, digest))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"{credentials.access_key}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={names},Signature={signature}"
    return headers
