"""RFC 9421: the examples of its text and of appendix B."""

from __future__ import annotations

from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from gateway.identity import SpiffeId
from gateway.messages import Fields, RequestHead
from gateway.packet.components import SignatureError, combine, covered_list, signature_base
from gateway.packet.keys import Key, make_signature

SIGNER = SpiffeId("spiffe://mesh.local/signer")

# Appendix B.1.3, B.1.4 and B.1.5.
ECC_P256 = """\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----
"""
ED25519 = """\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----
"""
SHARED_SECRET = b64decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")

CONTENT_DIGEST = b"sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
REQUEST = RequestHead(
    b"POST",
    b"https",
    b"example.com",
    b"/foo?param=Value&Pet=dog",
    [
        (b"date", b"Tue, 20 Apr 2021 02:07:55 GMT"),
        (b"content-type", b"application/json"),
        (b"content-digest", CONTENT_DIGEST),
        (b"content-length", b"18"),
    ],
)


def base(head: RequestHead, covered: str, parameters: str = "") -> str:
    listed = covered_list(covered.encode())
    assert listed is not None
    return signature_base(head, combine(head.fields), listed, (covered + parameters).encode()).decode()


def value(head: RequestHead, component: str) -> str:
    """What one component contributes."""
    line, _, _ = base(head, f"({component})").partition("\n")
    return line.removeprefix(component + ": ")


def request(target: bytes, fields: Fields = [], *, authority: bytes = b"www.example.com") -> RequestHead:  # noqa: B006
    return RequestHead(b"GET", b"https", authority, target, fields)


def test_b_2_2_selective_coverage_with_a_query_parameter() -> None:
    covered = '("@authority" "content-digest" "@query-param";name="Pet")'
    parameters = ';created=1618884473;keyid="test-key-rsa-pss";tag="header-example"'
    assert base(REQUEST, covered, parameters) == (
        '"@authority": example.com\n'
        f'"content-digest": {CONTENT_DIGEST.decode()}\n'
        '"@query-param";name="Pet": dog\n'
        f'"@signature-params": {covered}{parameters}'
    )


def test_b_2_3_full_coverage() -> None:
    covered = '("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length")'
    parameters = ';created=1618884473;keyid="test-key-rsa-pss"'
    assert base(REQUEST, covered, parameters) == (
        '"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
        '"@method": POST\n'
        '"@path": /foo\n'
        '"@query": ?param=Value&Pet=dog\n'
        '"@authority": example.com\n'
        '"content-type": application/json\n'
        f'"content-digest": {CONTENT_DIGEST.decode()}\n'
        '"content-length": 18\n'
        f'"@signature-params": {covered}{parameters}'
    )


def test_b_2_4_ecdsa_p256_sha256() -> None:
    # The example signs a response; what is ours of it is the key and the algorithm.
    text = (
        b'"@status": 200\n'
        b'"content-type": application/json\n'
        b'"content-digest": '
        b"sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\n"
        b'"content-length": 23\n'
        b'"@signature-params": ("@status" "content-type" "content-digest" "content-length")'
        b';created=1618884473;keyid="test-key-ecc-p256"'
    )
    signature = b64decode("wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==")
    material = load_pem_public_key(ECC_P256.encode())
    assert isinstance(material, ec.EllipticCurvePublicKey)
    key = Key("test-key-ecc-p256", SIGNER, material)
    assert key.verifies(signature, text)
    assert not key.verifies(signature, text.replace(b"200", b"201"))


def test_b_2_5_hmac_sha256() -> None:
    text = base(
        REQUEST, '("date" "@authority" "content-type")', ';created=1618884473;keyid="test-shared-secret"'
    ).encode()
    signature = b64decode("pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=")
    assert make_signature(SHARED_SECRET, text) == signature
    assert Key("test-shared-secret", SIGNER, SHARED_SECRET).verifies(signature, text)


def test_b_2_6_ed25519() -> None:
    text = base(
        REQUEST,
        '("date" "@method" "@path" "@authority" "content-type" "content-length")',
        ';created=1618884473;keyid="test-key-ed25519"',
    ).encode()
    signature = b64decode("wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==")
    private = load_pem_private_key(ED25519.encode(), None)
    assert isinstance(private, Ed25519PrivateKey)
    assert make_signature(private, text) == signature
    assert Key("test-key-ed25519", SIGNER, private.public_key()).verifies(signature, text)


def test_section_2_1_fields_are_combined_and_stripped() -> None:
    head = request(
        b"/",
        [
            (b"x-ows-header", b"  Leading and trailing whitespace.   "),
            (b"cache-control", b"max-age=60"),
            (b"cache-control", b"   must-revalidate"),
            (b"x-empty-header", b""),
            (b"example-dict", b"  a=1,    b=2;x=1;y=2,   c=(a   b   c)"),
        ],
    )
    assert value(head, '"x-ows-header"') == "Leading and trailing whitespace."
    assert value(head, '"cache-control"') == "max-age=60, must-revalidate"
    assert value(head, '"x-empty-header"') == ""
    assert value(head, '"example-dict"') == "a=1,    b=2;x=1;y=2,   c=(a   b   c)"


def test_section_2_1_1_strict_serialization() -> None:
    fields = [(b"flight-budget", b"  tokens=1,    hops=2;x=1;y=2,   c=(a   b   c)"), (b"x-unknown", b"a")]
    assert value(request(b"/", fields), '"flight-budget";sf') == "tokens=1, hops=2;x=1;y=2, c=(a b c)"
    with pytest.raises(SignatureError, match='"x-unknown";sf: no structured field of a type that is known'):
        value(request(b"/", fields), '"x-unknown";sf')


def test_section_2_1_2_dictionary_members() -> None:
    head = request(b"/", [(b"example-dict", b"  a=1, b=2;x=1;y=2, c=(a   b    c), d")])
    assert value(head, '"example-dict";key="a"') == "1"
    assert value(head, '"example-dict";key="d"') == "?1"
    assert value(head, '"example-dict";key="b"') == "2;x=1;y=2"
    assert value(head, '"example-dict";key="c"') == "(a b c)"
    with pytest.raises(SignatureError, match='"example-dict";key: the field is no dictionary with that member'):
        value(head, '"example-dict";key="e"')


def test_section_2_1_3_binary_wrapped_fields() -> None:
    two = request(b"/", [(b"example-header", b"value, with, lots"), (b"example-header", b"of, commas")])
    one = request(b"/", [(b"example-header", b"value, with, lots, of, commas")])
    assert value(two, '"example-header";bs') == ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"
    assert value(one, '"example-header";bs') == ":dmFsdWUsIHdpdGgsIGxvdHMsIG9mLCBjb21tYXM=:"


def test_section_2_2_derived_components() -> None:
    head = request(b"/path?param=value&foo=bar&baz=bat%2Dman")
    assert value(head, '"@target-uri"') == "https://www.example.com/path?param=value&foo=bar&baz=bat%2Dman"
    assert value(head, '"@scheme"') == "https"
    assert value(head, '"@request-target"') == "/path?param=value&foo=bar&baz=bat%2Dman"
    assert value(head, '"@path"') == "/path"
    assert value(head, '"@query"') == "?param=value&foo=bar&baz=bat%2Dman"
    assert value(request(b"/path"), '"@query"') == "?"
    assert value(request(b"/", authority=b"WWW.Example.com:443"), '"@authority"') == "www.example.com"
    assert value(request(b"/", authority=b"example.com:8443"), '"@authority"') == "example.com:8443"


def test_section_2_2_8_query_parameters() -> None:
    head = request(b"/path?param=value&foo=bar&baz=batman&qux=")
    assert value(head, '"@query-param";name="baz"') == "batman"
    assert value(head, '"@query-param";name="qux"') == ""
    head = request(
        b"/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something"
    )
    assert value(head, '"@query-param";name="var"') == "this%20is%20a%20big%0Amultiline%20value"
    assert value(head, '"@query-param";name="bar"') == "with%20plus%20whitespace"
    assert value(head, '"@query-param";name="fa%C3%A7ade%22%3A%20"') == "something"
    with pytest.raises(SignatureError, match="\"@query-param\": 'a' stands 2 times in the query"):
        value(request(b"/?a=1&a=1"), '"@query-param";name="a"')


@pytest.mark.parametrize(
    ("covered", "told"),
    [
        ('("@method";req)', '"@method";req: a request is signed by its own head alone'),
        ('("date";tr)', '"date";tr: a request is signed by its own head alone'),
        ('("@status")', '"@status": not a component of a request'),
        ('("@query-param")', '"@query-param": not a component of a request'),
        ('("@query-param";name=a)', '"@query-param": not a component of a request'),
        ('("@method";sf)', '"@method": not a component of a request'),
        ('("Date")', "'Date' is not a component's name, in lower case"),
        ("(date)", "'date' is not a component's name, in lower case"),
        ('("date" "date")', '"date": covered twice'),
        ('("a";sf;key="b" "a";key="b";sf)', '"a";key="b";sf: covered twice'),
        ('("a";bs;sf)', '"a": its parameters are unknown, or do not go together'),
        ('("a";sf=1)', '"a": its parameters are unknown, or do not go together'),
        ("(%s)" % " ".join(f'"x{number}"' for number in range(65)), "more than 64 components"),
    ],
)
def test_what_no_request_has_cannot_be_covered(covered: str, told: str) -> None:
    with pytest.raises(SignatureError) as caught:
        covered_list(covered.encode())
    assert told in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"()x", b'( "date")', b'("date"  "host")', b'"date"', b'("date"), ("host")'])
def test_a_list_out_of_form_is_none(text: bytes) -> None:
    assert covered_list(text) is None


@pytest.mark.parametrize("hostile", [b'a\n"@method": GET', "é".encode()])
def test_no_value_can_pretend_to_be_another_line(hostile: bytes) -> None:
    head = request(b"/", [(b"x", hostile)])
    with pytest.raises(SignatureError, match="cannot be signed; cover the field with ;bs"):
        base(head, '("x")')
    assert value(head, '"x";bs').startswith(":")
