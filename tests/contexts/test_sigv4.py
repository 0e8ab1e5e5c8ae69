"""Signatures are those of the examples in AWS's documentation."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.contexts.sigv4 import Credentials, load_credentials, signed_headers

# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "examplebucket.s3.amazonaws.com"
WHEN = datetime(2013, 5, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "query", "more", "signature"),
    [
        (
            "/test.txt",
            {},
            {"range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        ("/", {"lifecycle": ""}, {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "/",
            {"max-keys": "2", "prefix": "J"},
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_the_examples_come_out(path: str, query: dict[str, str], more: dict[str, str], signature: str) -> None:
    headers = signed_headers("GET", HOST, path, query, b"", "us-east-1", EXAMPLE, WHEN, more)
    assert headers["authorization"].rpartition("Signature=")[2] == signature


def test_credentials_are_read_as_aws_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("[other]\n[default]\naws_access_key_id=a\naws_secret_access_key = s%b\naws_session_token=t\n")
    assert load_credentials(path) == Credentials("a", "s%b", "t")
    path.write_text("[default]\naws_secret_access_key = secret\n")
    with pytest.raises(ValueError, match=r"expected \[default\]") as told:
        load_credentials(path)
    assert "secret = " not in str(told.value)
