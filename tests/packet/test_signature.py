"""A packet's signature proves who sent it, and that nothing of it was changed; nothing less passes."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import SpiffeId
from gateway.messages import Field, Fields, RequestHead
from gateway.packet.keys import Key, KeySet, SigningKey, UnusableKeyError
from gateway.packet.signature import Signature, SignatureError, sign, verify

PLANNER = SpiffeId("spiffe://mesh.local/ns/agents/sa/planner")
SECRET = bytes(range(32))
P256 = ec.derive_private_key(7, ec.SECP256R1())
ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(32))
SIGNERS: dict[str, SigningKey] = {"hmac": SECRET, "p256": P256, "ed25519": ED25519}
KEYS = KeySet(
    {
        "hmac": Key("hmac", PLANNER, SECRET),
        "p256": Key("p256", PLANNER, P256.public_key()),
        "ed25519": Key("ed25519", PLANNER, ED25519.public_key()),
        "other": Key("other", PLANNER, bytes(32)),
    }
)
NOW = 1_900_000_000
CAPABILITY = (b"flight-capability", b"code.execute")
ID = (b"flight-id", b'"id-1"')
HEAD = RequestHead(b"POST", b"https", b"gateway.mesh.local:8443", b"/run?x=1", [CAPABILITY, ID])


def altered(head: RequestHead, **changes: Any) -> RequestHead:
    """`head` with other parts."""
    parts = {name: getattr(head, name) for name in ("method", "scheme", "authority", "path", "fields", "protocol")}
    return RequestHead(**(parts | changes))


def with_fields(head: RequestHead, *more: Field) -> RequestHead:
    return altered(head, fields=[*head.fields, *more])


def signed(
    head: RequestHead = HEAD,
    keyid: str = "hmac",
    *,
    created: int = NOW,
    nonce: str = "n-1",
    expires: int | None = None,
    components: list[bytes] | None = None,
) -> RequestHead:
    fields = sign(
        head, SIGNERS[keyid], keyid=keyid, created=created, nonce=nonce, expires=expires, components=components
    )
    return with_fields(head, *fields)


def by_hand(head: RequestHead, text: str) -> RequestHead:
    """`head` under a signature with `text` as its parameters, and with a value that does not hold."""
    return with_fields(head, (b"signature-input", b"flight=" + text.encode()), (b"signature", b"flight=:AAAA:"))


def check(head: RequestHead, now: float = NOW) -> Signature:
    signature = verify(head, KEYS, None, now)
    assert signature is not None
    return signature


def refused(head: RequestHead, told: str, now: float = NOW) -> None:
    with pytest.raises(SignatureError) as caught:
        verify(head, KEYS, None, now)
    assert told in str(caught.value), str(caught.value)


# -- what holds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyid", SIGNERS)
def test_a_signature_tells_who_signed_what_and_for_how_long(keyid: str) -> None:
    signature = check(signed(keyid=keyid, expires=NOW + 60))
    assert (signature.keyid, signature.signer, signature.nonce) == (keyid, PLANNER, "n-1")
    assert (signature.created, signature.expires) == (NOW, NOW + 60)
    assert signature.covered == {b"@method", b"@target-uri", b"flight-capability", b"flight-id"}


def test_an_unsigned_packet_has_no_signature() -> None:
    assert verify(HEAD, KEYS, None, NOW) is None


def test_somebody_elses_signature_is_not_ours_and_does_not_hide_ours() -> None:
    theirs = [(b"signature-input", b'sig1=("@method");created=1'), (b"signature", b"sig1=:AAAA:")]
    assert verify(with_fields(HEAD, *theirs), KEYS, None, NOW) is None
    head = signed()
    assert check(with_fields(head, *theirs)).keyid == "hmac"
    assert check(altered(head, fields=[*theirs, *head.fields])).keyid == "hmac"


def test_white_space_and_escapes_in_signature_input_make_no_difference() -> None:
    head = signed(nonce='a"b\\c')
    assert check(head).nonce == 'a"b\\c'
    fields = [
        (name, value.replace(b" ", b"  ").replace(b";", b"; ") if name == b"signature-input" else value)
        for name, value in head.fields
    ]
    assert check(altered(head, fields=fields)).nonce == 'a"b\\c'


def test_parts_of_the_target_are_as_good_as_the_whole() -> None:
    parts = [b"@method", b"@authority", b"@path", b"flight-capability", b"flight-id"]
    assert check(signed(components=[*parts, b"@query"])).covered >= set(parts)
    assert check(signed(altered(HEAD, path=b"/run"), components=parts))


def test_the_host_that_names_the_capability_covers_it() -> None:
    head = RequestHead(b"POST", b"http", b"code.execute.flight.internal", b"/run", [ID])
    at_the_gateway = signed(head)
    assert check(at_the_gateway)
    at_the_agent = with_fields(at_the_gateway, CAPABILITY)  # as the gateway writes it out
    assert check(at_the_agent)
    refused(with_fields(at_the_gateway, (b"flight-capability", b"code.delete")), '"flight-capability"')


def test_an_upgrade_holds_in_both_versions_of_http() -> None:
    opening = RequestHead(b"GET", b"https", b"gateway", b"/ws", [CAPABILITY, ID])
    extended = altered(opening, method=b"CONNECT", protocol=b"websocket")
    over_http1 = altered(signed(opening), method=b"CONNECT", protocol=b"websocket")
    assert check(over_http1)
    assert check(signed(extended))
    refused(altered(over_http1, path=b"/other"), "signature: ")


def test_what_is_remembered_against_replay_is_the_nonce_else_the_id_of_the_key() -> None:
    assert check(signed(nonce="n-1")).replay_key == b'"hmac";nonce="n-1"'
    assert check(signed(nonce="n-1", keyid="p256")).replay_key == b'"p256";nonce="n-1"'
    without = check(signed(nonce=""))
    assert without.replay_key == b'"hmac";id="id-1"'
    assert check(signed(), now=without.remember_until - 1)
    refused(signed(), "created: ", now=without.remember_until)


# -- what does not ----------------------------------------------------------------------------------------

_VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\?#')
_TEXT = st.text(_VISIBLE, min_size=1, max_size=12)


@st.composite
def heads(draw: st.DrawFn) -> RequestHead:
    optional = [
        (b"flight-conversation", b'"c-1"'),
        (b"flight-context", b'ref="r"'),
        (b"flight-budget", b"tokens=10"),
        (b"flight-budget", b"hops=2"),
        (b"flight-credential", b"a.b.c"),
        (b"content-digest", b"sha-256=:AAAA:"),
        (b"accept", b"*/*"),
    ]
    fields: Fields = [CAPABILITY, (b"flight-id", b'"%s"' % draw(_TEXT).encode())]
    fields += draw(st.lists(st.sampled_from(optional), unique=True))
    query = draw(st.one_of(st.just(""), _TEXT.map("?".__add__)))
    return RequestHead(
        draw(st.sampled_from([b"GET", b"POST", b"DELETE"])),
        draw(st.sampled_from([b"http", b"https"])),
        draw(st.sampled_from([b"gateway", b"gateway:8443", b"[::1]:80"])),
        f"/{draw(_TEXT)}{query}".encode(),
        draw(st.permutations(fields)),
    )


def flipped(value: bytes, bit: int) -> bytes:
    octets = bytearray(value)
    octets[bit // 8 % len(octets)] ^= 1 << bit % 8
    return bytes(octets)


def changed(head: RequestHead, index: int, value: bytes) -> RequestHead:
    fields = list(head.fields)
    fields[index] = (fields[index][0], value)
    return altered(head, fields=fields)


def place(head: RequestHead, name: bytes) -> int:
    return [field[0] for field in head.fields].index(name)


@given(heads(), st.sampled_from(sorted(SIGNERS)), st.sampled_from(["", "n-1", 'q"\\']))
def test_what_is_signed_here_verifies_here(head: RequestHead, keyid: str, nonce: str) -> None:
    assert check(signed(head, keyid, nonce=nonce)).nonce == nonce


@given(heads(), st.sampled_from(sorted(SIGNERS)), st.data())
def test_whatever_covered_part_is_changed_the_signature_no_longer_holds(
    head: RequestHead, keyid: str, data: st.DataObject
) -> None:
    head = signed(head, keyid)
    covered = check(head).covered
    for part in ("method", "scheme", "authority", "path"):
        tampered = altered(head, **{part: getattr(head, part) + b"x"})
        refused(tampered, "signature: not one of this key over the covered components")
    index = data.draw(st.sampled_from([at for at, field in enumerate(head.fields) if field[0] in covered]))
    refused(changed(head, index, head.fields[index][1] + b"x"), "")
    refused(with_fields(head, head.fields[index]), "signature: ")
    refused(altered(head, fields=[*head.fields[:index], *head.fields[index + 1 :]]), "")


@given(heads(), st.sampled_from(sorted(SIGNERS)), st.data())
def test_whatever_parameter_is_changed_the_signature_no_longer_holds(
    head: RequestHead, keyid: str, data: st.DataObject
) -> None:
    head = signed(head, keyid, expires=NOW + 60)
    index = place(head, b"signature-input")
    value = head.fields[index][1]
    old, new = data.draw(
        st.sampled_from(
            [
                (b";created=1900000000", b";created=1899999999"),
                (b";expires=1900000060", b";expires=1900000061"),
                (b";expires=1900000060", b""),
                (b";keyid=", b';alg="hmac-sha512";keyid='),
                (b';keyid="%s"' % keyid.encode(), b';keyid="other"'),
                (b';nonce="n-1"', b';nonce="n-2"'),
                (b';nonce="n-1"', b""),
                (b';nonce="n-1"', b';nonce="n-1";tag="x"'),
                (b'"@method" "@target-uri"', b'"@target-uri" "@method"'),
            ]
        )
    )
    assert old in value
    refused(changed(head, index, value.replace(old, new)), "")


@given(heads(), st.sampled_from(sorted(SIGNERS)), st.integers(0, 511))
def test_with_any_bit_of_it_changed_the_signature_no_longer_holds(head: RequestHead, keyid: str, bit: int) -> None:
    head = signed(head, keyid)
    index = place(head, b"signature")
    value = b64decode(head.fields[index][1][len(b"flight=:") : -1])
    refused(changed(head, index, b"flight=:%s:" % b64encode(flipped(value, bit))), "signature: ")


@given(heads(), st.data())
def test_what_must_be_covered_and_is_not_refuses(head: RequestHead, data: st.DataObject) -> None:
    needed = sorted(check(signed(head)).covered)
    missing = data.draw(st.sampled_from(needed))
    partly = signed(head, components=[name for name in needed if name != missing])
    told = "@authority" if missing == b"@target-uri" else missing.decode()
    refused(partly, f'"{told}": must be covered')


@pytest.mark.parametrize("missing", [b"@authority", b"@path", b"@query"])
def test_no_part_of_the_target_may_be_left_out(missing: bytes) -> None:
    parts = [b"@method", b"@authority", b"@path", b"@query", b"flight-capability", b"flight-id"]
    refused(signed(components=[name for name in parts if name != missing]), f'"{missing.decode()}": must be covered')


def test_one_member_of_a_field_does_not_cover_the_field() -> None:
    head = with_fields(HEAD, (b"flight-budget", b"tokens=10, hops=2"))
    text = f'{COVERED[:-1]} "flight-budget";key="tokens");created={NOW};keyid="hmac"'
    refused(by_hand(head, text), '"flight-budget": must be covered when it is there')


@pytest.mark.parametrize(
    ("created", "expires", "now", "told"),
    [
        (NOW, None, NOW - 30, None),
        (NOW, None, NOW - 31, "created: lies in the future"),
        (NOW, None, NOW + 330, None),
        (NOW, None, NOW + 331, "created: more than 300 seconds ago"),
        (NOW, NOW + 1000, NOW + 1030, None),
        (NOW, NOW + 1000, NOW + 1031, "expires: the signature's time is over"),
    ],
)
def test_a_signature_lives_its_time_with_30_seconds_for_a_clock_that_is_off(
    created: int, expires: int | None, now: float, told: str | None
) -> None:
    head = signed(created=created, expires=expires)
    if told is None:
        assert check(head, now)
    else:
        refused(head, told, now)


COVERED = '("@method" "@target-uri" "flight-capability" "flight-id")'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'{COVERED};keyid="hmac"', "created: this parameter is required"),
        (f"{COVERED};created={NOW}", "keyid: this parameter is required"),
        (f'{COVERED};created={NOW};keyid="nobody"', "keyid: no such key is known here"),
        (f'{COVERED};created={NOW};keyid="hmac";alg="ed25519"', "alg: the key is for another algorithm"),
        (f'{COVERED};created="{NOW}";keyid="hmac"', "created: expected an Integer"),
        (f'{COVERED};created={NOW}.5;keyid="hmac"', "created: expected an Integer"),
        (f"{COVERED};created={NOW};keyid=hmac", "keyid: expected a String"),
        (f'{COVERED};created={NOW};keyid="hmac";nonce', "nonce: expected a String"),
        (f'{COVERED};created={NOW};keyid="hmac";expires=?1', "expires: expected an Integer"),
        (f'{COVERED};created={NOW};keyid="hmac";created={NOW}', "signature-input: created stands twice"),
        (f'{COVERED};created={NOW};keyid="hmac", flight=()', "signature-input: flight stands twice"),
        (f'("date" {COVERED[1:]};created={NOW};keyid="hmac"', '"date": the request has no such field'),
        (f'{COVERED};created={NOW};keyid="hmac"', "signature: not one of this key over the covered components"),
        (f'();created={NOW};keyid="hmac"', '"@method": must be covered'),
        (f'"@method";created={NOW};keyid="hmac"', "signature-input: flight is not a list of components in brackets"),
        ("(", "signature-input: "),
        ('("@method', "signature-input: "),
    ],
)
def test_a_refusal_names_the_component_or_parameter_that_failed(text: str, told: str) -> None:
    refused(by_hand(HEAD, text), told)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"flight=:A:", "signature: "),
        (b"flight=1", "signature: flight is not a Byte Sequence"),
        (b"sig1=:AAAA:", "signature: has no member flight, which signature-input has"),
        (b"flight=:AAAA:, flight=:AAAA:", "signature: flight stands twice"),
        (b"flight=:AAAA:;x=:AAAA:", "signature: not one of this key"),
        (b"", "signature: has no member flight"),
    ],
)
def test_a_signature_out_of_form_is_refused(value: bytes, told: str) -> None:
    head = signed()
    refused(changed(head, place(head, b"signature"), value), told)


def test_half_a_signature_is_refused() -> None:
    head = signed()
    refused(with_fields(HEAD, head.fields[-1]), "signature-input: has no member flight, which signature has")
    refused(with_fields(HEAD, head.fields[-2]), "signature: has no member flight, which signature-input has")


def test_no_refusal_shows_what_the_signature_should_have_been() -> None:
    head = signed()
    value = head.fields[-1][1]
    with pytest.raises(SignatureError) as caught:
        verify(changed(head, place(head, b"flight-id"), b'"id-2"'), KEYS, None, NOW)
    assert re.search(r"[A-Za-z0-9+/]{30}", str(caught.value)) is None
    assert value.decode() not in str(caught.value)


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_no_bytes_do_anything_but_hold_or_refuse(given_input: bytes, value: bytes) -> None:
    head = with_fields(HEAD, (b"signature-input", b"flight=" + given_input), (b"signature", value))
    with pytest.raises(SignatureError):
        verify(head, KEYS, None, NOW)


def test_keys_that_cannot_sign_packets_say_so() -> None:
    for key in (bytes(31), ec.derive_private_key(7, ec.SECP384R1())):
        with pytest.raises(UnusableKeyError):
            sign(HEAD, key, keyid="k", created=NOW, nonce="n")


def test_what_is_not_there_cannot_be_signed() -> None:
    with pytest.raises(SignatureError, match='"flight-id": the request has no such field'):
        signed(altered(HEAD, fields=[CAPABILITY]))
