"""A packet's signature (RFC 9421, label ``flight``): made, verified.  Pure.

Enters: a request's head, keys, the time.  Leaves: a `Signature`, or a `SignatureError` that names what failed.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import Error as BinasciiError
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import http_sf
import msgspec

from gateway.identity import Principal, SpiffeId
from gateway.messages import Fields, RequestHead
from gateway.packet import fields as names
from gateway.packet.components import Covered, FieldValues, SignatureError, combine, covered_list, signature_base
from gateway.packet.keys import Algorithm, Key, KeySet, SigningKey, UnusableKeyError, make_signature
from gateway.packet.packet import CAPABILITY_DOMAIN

__all__ = ["CLOCK_SKEW_S", "LIFETIME_S", "Signature", "SignatureError", "sign", "verify"]

LABEL = "flight"
CLOCK_SKEW_S = 30
"""How far the signer's clock may be off."""
LIFETIME_S = 300
"""How long a signature without ``expires`` lives."""

_PREFIX = b"flight="
_COVERED_WHEN_PRESENT = (
    names.CONVERSATION,
    names.CONTEXT,
    names.BUDGET,
    names.CREDENTIAL,
    names.CONTENT_DIGEST,
)
# What signers write: a String without escapes, or an Integer, in canonical form (RFC 9651 section 4.1).
_PLAIN_PARAMETER = re.compile(r';([a-z]+)=(?:"([ !#-\[\]-~]*)"|(0|[1-9][0-9]{0,14}))')


class Signature(msgspec.Struct, frozen=True):
    """A signature that holds."""

    keyid: str
    signer: SpiffeId
    """Whose key it is."""
    algorithm: Algorithm
    created: int
    """Seconds since the epoch; so is `expires`."""
    expires: int
    """What the signer said, else `LIFETIME_S` after `created`."""
    nonce: str
    """Empty when there is none."""
    covered: frozenset[bytes]
    """Names of the components that are covered in whole."""
    once: str
    """The nonce, else the packet's id: with one key it is accepted once."""

    @property
    def replay_key(self) -> bytes:
        """What to remember of this signature, so that it is not accepted again."""
        kind = b"nonce" if self.nonce else b"id"
        return b"%s;%s=%s" % (names.sf_string(self.keyid), kind, names.sf_string(self.once))

    @property
    def remember_until(self) -> int:
        """When `replay_key` may be forgotten: from then on the signature no longer holds."""
        return self.expires + CLOCK_SKEW_S + 1


def verify(head: RequestHead, keys: KeySet, principal: Principal | None, now: float) -> Signature | None:
    """Verify the signature of a packet; ``None`` when it has none with the label ``flight``.

    That the signer is `principal`, and that the signature comes for the first time, is for the caller to see to.

    Args:
        head: the request as it arrived.
        keys: the keys that are known, besides that of the principal's certificate.
        principal: the authenticated sender.
        now: seconds since the epoch.

    Raises:
        SignatureError: it does not hold, or does not cover what it must.

    """
    values = combine(head.fields)
    given = _read_input(values.get(names.SIGNATURE_INPUT))
    value = _read_signature(values.get(names.SIGNATURE))
    if given is None and value is None:
        return None
    if given is None:
        raise SignatureError("signature-input: has no member flight, which signature has")
    if value is None:
        raise SignatureError("signature: has no member flight, which signature-input has")
    key = _key(given.parameters, keys, principal)
    created, expires = _lifetime(given.parameters, now)
    nonce = _text(given.parameters, "nonce") or ""
    covered = given.covered
    _check_coverage(head, values, covered.whole)
    holds = key.verifies(value, signature_base(head, values, covered, given.text))
    if not holds and head.protocol:
        # Inside, an upgrade is a CONNECT (RFC 8441); who asked for it over HTTP/1.1 has signed a GET.
        upgrade = RequestHead(b"GET", head.scheme, head.authority, head.path, head.fields, head.protocol)
        holds = key.verifies(value, signature_base(upgrade, values, covered, given.text))
    if not holds:
        raise SignatureError("signature: not one of this key over the covered components")
    once = nonce or _packet_id(values[names.ID])
    return Signature(key.keyid, key.principal, key.algorithm, created, expires, nonce, covered.whole, once)


def sign(
    head: RequestHead,
    key: SigningKey,
    *,
    keyid: str,
    created: int,
    nonce: str,
    expires: int | None = None,
    components: Sequence[bytes] | None = None,
) -> Fields:
    """The ``signature-input`` and ``signature`` fields that sign a request.

    Args:
        head: the request, all but these two fields.
        key: the signer's.
        keyid: what the verifier knows the key as.
        created: seconds since the epoch.
        nonce: not used before with this key.
        expires: seconds since the epoch; without it the signature lives for `LIFETIME_S`.
        components: names of the components to cover; without it, those that a packet's signature must cover.

    Raises:
        SignatureError: a component is not there.
        UnusableKeyError: the key cannot sign packets.

    """
    values = combine(head.fields)
    if components is None:
        components = _components(values)
    text = b"(%s)" % b" ".join(b'"%s"' % name for name in components)
    covered = covered_list(text)
    if covered is None:
        raise SignatureError(f"{text.decode('latin-1')}: not a list of component names")
    text += b";created=%d" % created
    if expires is not None:
        text += b";expires=%d" % expires
    text += b";keyid=%s;nonce=%s" % (names.sf_string(keyid), names.sf_string(nonce))
    value = make_signature(key, signature_base(head, values, covered, text))
    return [(names.SIGNATURE_INPUT, _PREFIX + text), (names.SIGNATURE, b"%s:%s:" % (_PREFIX, b64encode(value)))]


def _components(values: FieldValues) -> list[bytes]:
    optional = (names.CAPABILITY, *_COVERED_WHEN_PRESENT)
    return [b"@method", b"@target-uri", names.ID, *(name for name in optional if name in values)]


# -- reading ----------------------------------------------------------------------------------------------


class _Input(NamedTuple):
    """The member ``flight`` of ``signature-input``."""

    covered: Covered
    parameters: Mapping[str, object]
    text: bytes
    """Both, in canonical form, as they stand in the signature base."""


def _read_input(raw: bytes | None) -> _Input | None:
    if raw is None:
        return None
    # The common shape is one label, in canonical form, and no bracket within the list; the rest takes the long way.
    end = raw.find(b")") + 1
    if raw.startswith(_PREFIX) and end:
        parameters = _plain_parameters(raw[end:].decode("latin-1"))
        covered = covered_list(raw[len(_PREFIX) : end])
        if parameters is not None and covered is not None:
            return _Input(covered, parameters, raw[len(_PREFIX) :])
    member = _member("signature-input", raw)
    if member is None:
        return None
    covered = covered_list(_canonical((member[0], {})))
    if covered is None:
        raise SignatureError("signature-input: flight is not a list of components in brackets")
    return _Input(covered, member[1], _canonical(member))


def _plain_parameters(text: str) -> dict[str, object] | None:
    """The parameters, when all are of the common shape and each stands once."""
    parameters: dict[str, object] = {}
    at = 0
    while at < len(text):
        found = _PLAIN_PARAMETER.match(text, at)
        if found is None:
            return None
        name, string, number = found.groups()
        if name in parameters:
            return None
        parameters[name] = string if number is None else int(number)
        at = found.end()
    return parameters


def _read_signature(raw: bytes | None) -> bytes | None:
    if raw is None:
        return None
    if raw.startswith(_PREFIX + b":") and raw.endswith(b":"):
        try:
            return a2b_base64(raw[len(_PREFIX) + 1 : -1], strict_mode=True)
        except BinasciiError:
            pass  # several labels, or base64 that only a lenient reader takes
    member = _member("signature", raw)
    if member is None:
        return None
    if not isinstance(member[0], bytes):
        raise SignatureError("signature: flight is not a Byte Sequence, like flight=:…:")
    return member[0]


def _member(name: str, raw: bytes) -> Any:
    def refuse(key: str, _: str) -> None:
        raise SignatureError(f"{name}: {key[:60]} stands twice")

    try:
        members: Any = http_sf.parse(raw, tltype="dictionary", on_duplicate_key=refuse)
    except http_sf.StructuredFieldError as error:
        raise SignatureError(f"{name}: {error.args[0]} (character {error.position})") from None
    return members.get(LABEL)


def _canonical(member: Any) -> bytes:
    return http_sf.ser([member]).encode("ascii")


def _packet_id(raw: bytes) -> str:
    try:
        item: Any = http_sf.parse(raw, tltype="item")
    except http_sf.StructuredFieldError:
        item = (None, {})
    if type(item[0]) is str:
        return item[0]
    raise SignatureError('"flight-id": not a String')


# -- checking ---------------------------------------------------------------------------------------------


def _key(parameters: Mapping[str, object], keys: KeySet, principal: Principal | None) -> Key:
    keyid = _text(parameters, "keyid")
    if keyid is None:
        raise SignatureError("keyid: this parameter is required")
    try:
        key = keys.find(keyid, principal)
    except UnusableKeyError as error:
        raise SignatureError(f"keyid: {error}") from None
    if key is None:
        raise SignatureError("keyid: no such key is known here")
    algorithm = _text(parameters, "alg")
    if algorithm is not None and algorithm != key.algorithm.value:
        raise SignatureError("alg: the key is for another algorithm")
    return key


def _lifetime(parameters: Mapping[str, object], now: float) -> tuple[int, int]:
    created, expires = _seconds(parameters, "created"), _seconds(parameters, "expires")
    if created is None:
        raise SignatureError("created: this parameter is required")
    if created > now + CLOCK_SKEW_S:
        raise SignatureError("created: lies in the future; set the signer's clock")
    if expires is None:
        expires = created + LIFETIME_S
        if now > expires + CLOCK_SKEW_S:
            raise SignatureError(f"created: more than {LIFETIME_S} seconds ago, and there is no expires; sign anew")
    elif now > expires + CLOCK_SKEW_S:
        raise SignatureError("expires: the signature's time is over; sign anew")
    return created, expires


def _check_coverage(head: RequestHead, values: FieldValues, covered: frozenset[bytes]) -> None:
    if b"@method" not in covered:
        raise SignatureError('"@method": must be covered')
    if b"@target-uri" not in covered:
        for name in (b"@authority", b"@path", b"@query"):
            if name not in covered and (name != b"@query" or b"?" in head.path):
                raise SignatureError(f'"{name.decode()}": must be covered, or "@target-uri"')
    if names.ID not in covered:
        raise SignatureError('"flight-id": must be covered')
    if names.CAPABILITY not in covered and names.CAPABILITY in values:
        # What the host names is covered as a part of it; the gateway writes it out for the agent.
        host = head.authority.lower().partition(b":")[0]
        if host != values[names.CAPABILITY] + CAPABILITY_DOMAIN:
            raise SignatureError('"flight-capability": must be covered')
    for name in _COVERED_WHEN_PRESENT:
        if name in values and name not in covered:
            raise SignatureError(f'"{name.decode()}": must be covered when it is there')


def _text(parameters: Mapping[str, object], name: str) -> str | None:
    value = parameters.get(name)
    if value is None or type(value) is str:
        return value
    raise SignatureError(f"{name}: expected a String")


def _seconds(parameters: Mapping[str, object], name: str) -> int | None:
    value = parameters.get(name)
    if value is None or type(value) is int:
        return value
    raise SignatureError(f"{name}: expected an Integer, seconds since the epoch")
