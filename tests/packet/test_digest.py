"""RFC 9530: a body is checked against its digest while it passes."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.packet import MalformedPacketError
from gateway.packet.digest import content_digest, digest_check

# RFC 9530 appendix B: the body of most examples, with its digests.
BODY = b'{"hello": "world"}\n'
SHA_256 = b"sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
SHA_512 = b"sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:"
OTHER_SHA_256 = b"sha-256=:%s:" % b64encode(hashlib.sha256(b"other").digest())


def passes(field: bytes, *pieces: bytes) -> bool:
    check = digest_check(field)
    assert check is not None
    for piece in pieces:
        check.update(piece)
    return check.matches()


@pytest.mark.parametrize("field", [SHA_256, SHA_512, SHA_256 + b", " + SHA_512, b"md5=:AA==:, " + SHA_256 + b";p=1"])
def test_the_examples_of_the_rfc_pass_and_a_changed_body_does_not(field: bytes) -> None:
    assert passes(field, BODY)
    assert not passes(field, BODY, b"x")
    assert not passes(field, BODY[:-1])


def test_the_strongest_digest_decides() -> None:
    assert passes(OTHER_SHA_256 + b", " + SHA_512, BODY)


def test_what_is_made_here_is_what_the_rfc_shows() -> None:
    assert content_digest(BODY) == SHA_256


def test_a_digest_of_unknown_algorithms_only_cannot_be_checked() -> None:
    assert digest_check(b"md5=:AA==:, sha=:AA==:") is None


@pytest.mark.parametrize(
    ("field", "told"),
    [
        (b"sha-256=:RK/0:", "content-digest: sha-256 is no Byte Sequence of 32 bytes (character 0)"),
        (b"a=1, sha-512=1", "content-digest: sha-512 is no Byte Sequence of 64 bytes (character 5)"),
        (b"sha-256=:RK", "content-digest: .*character"),
        (b"sha-256", "content-digest: sha-256 is no Byte Sequence"),
    ],
)
def test_a_malformed_digest_is_told_by_field_and_character(field: bytes, told: str) -> None:
    with pytest.raises(MalformedPacketError, match=told.replace("(", r"\(").replace(")", r"\)")):
        digest_check(field)


@given(st.lists(st.binary(max_size=50), max_size=6), st.data())
def test_a_body_passes_in_whatever_pieces_it_comes_and_with_any_byte_changed_it_does_not(
    pieces: list[bytes], data: st.DataObject
) -> None:
    body = b"".join(pieces)
    assert passes(content_digest(body), *pieces)
    if body:
        at = data.draw(st.integers(0, len(body) - 1))
        changed = body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]
        assert not passes(content_digest(body), changed)
