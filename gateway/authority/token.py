"""A credential on the wire: a JWT (RFC 7519) in the spirit of RFC 8693 and of transaction tokens.  Pure."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode
from typing import Final

import msgspec

from gateway.authority.credential import Credential
from gateway.authority.keys import TYPE, AuthorityKey, KeyRing, encoded
from gateway.authority.narrow import Terms
from gateway.identity import Principal, SpiffeId, parse_spiffe_id
from gateway.policy.patterns import CapabilityPattern, parse_capability_pattern

MAX_TOKEN_BYTES: Final = 16_384
"""Of a credential; longer ones are refused unread."""
MAX_REMEMBERED: Final = 4_096
"""Credentials whose signature is not verified again."""
CLAIMS: Final = frozenset(
    {"token", "typ", "kid", "alg", "signature", "iss", "exp", "nbf", "aud", "cnf", "cap", "conv"},
)
"""What may be amiss with a credential; the detail of such a refusal begins with one of these."""
SKEW_S: Final = 30.0
"""How far the clock of the replica that has issued a credential may be ahead; its end is taken to the second."""


class CredentialError(ValueError):
    """A credential that does not hold; `claim` is the claim or the part of the JWT that is amiss."""

    def __init__(self, claim: str, why: str) -> None:
        super().__init__(f"{claim}: {why}")
        self.claim = claim


class _Actor(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """RFC 8693 section 4.1: who acts, and inside it who acted before."""

    sub: str
    act: _Actor | None = None


class _Confirmation(msgspec.Struct, rename={"thumbprint": "x5t#S256"}):
    """RFC 8705 section 3.1."""

    thumbprint: str


class _Claims(msgspec.Struct, omit_defaults=True):
    iss: str
    sub: str
    aud: str
    act: _Actor
    cnf: _Confirmation
    txn: str
    jti: str
    iat: int
    nbf: int
    exp: int
    cap: list[str]
    bud: dict[str, int]
    conv: str = ""
    parent: str = ""


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    alg: str
    kid: str
    typ: str


_encode = msgspec.json.Encoder().encode
_read_header = msgspec.json.Decoder(_Header).decode
_read_claims = msgspec.json.Decoder(_Claims).decode


def mint(
    terms: Terms, key: AuthorityKey, now: float, *, issuer: str, jti: str, audience: SpiffeId, thumbprint: str
) -> bytes:
    """The credential, signed.

    Args:
        terms: what it says.
        key: signs it.
        now: seconds since the epoch.
        issuer: ``iss``.
        jti: its id.
        audience: who alone may show it.
        thumbprint: of the certificate that has to be shown with it.

    """
    act: _Actor | None = None
    for each in terms.lineage:
        act = _Actor(each, act)
    assert act is not None
    issued = int(now)
    claims = _Claims(
        iss=issuer,
        sub=terms.subject,
        aud=audience,
        act=act,
        cnf=_Confirmation(thumbprint),
        txn=terms.root,
        jti=jti,
        iat=issued,
        nbf=issued,
        exp=int(terms.expires),
        cap=[pattern.text for pattern in terms.capabilities],
        bud=dict(terms.budget),
        conv=terms.conversation,
        parent=terms.parent,
    )
    message = key.header + b"." + encoded(_encode(claims))
    return message + b"." + encoded(key.sign(message))


class _Held(msgspec.Struct, frozen=True):
    """What is remembered of a credential: all but what depends on who shows it, and when."""

    credential: Credential
    not_before: float


class Verifier:
    """Verifies credentials, and remembers those whose signature held, and those that were signed here."""

    __slots__ = ("_issuer", "_known", "_most", "_ring")

    def __init__(self, ring: KeyRing, issuer: str, most: int = MAX_REMEMBERED) -> None:
        self._ring = ring
        self._issuer = issuer
        self._known: dict[bytes, _Held] = {}
        """By the hash of the whole token; the one that was asked for last is the last."""
        self._most = most

    def verify(self, raw: bytes, principal: Principal, now: float, *, bound: bool = True) -> Credential:
        """The credential `raw`, if it is for `principal` to show; `bound` says whether with its certificate.

        Raises:
            CredentialError: it does not hold.

        """
        if len(raw) > MAX_TOKEN_BYTES:
            raise CredentialError("token", f"has more than {MAX_TOKEN_BYTES} bytes")
        digest = hashlib.sha256(raw).digest()
        held = self._known.pop(digest, None)
        if held is None:
            held = self._read(raw)
        self._keep(digest, held)
        credential = held.credential
        if now >= credential.expires:
            raise CredentialError("exp", f"the credential expired {now - credential.expires:.0f} s ago")
        if held.not_before > now + SKEW_S:
            raise CredentialError("nbf", "the credential is not valid yet; compare the clocks of the replicas")
        if credential.audience != principal.id:
            raise CredentialError("aud", "the credential was given to another principal than the one that shows it")
        if bound and (not principal.certificate or credential.thumbprint != principal.thumbprint):
            raise CredentialError("cnf", "the credential is bound to another certificate than the one that is shown")
        return credential

    def remember(self, token: bytes, credential: Credential, not_before: float) -> None:
        """`token` says `credential`, and holds from then on (seconds since the epoch): it was signed here."""
        self._keep(hashlib.sha256(token).digest(), _Held(credential, not_before))

    def _keep(self, digest: bytes, held: _Held) -> None:
        if len(self._known) >= self._most:
            self._known.pop(next(iter(self._known)), None)
        self._known[digest] = held

    def _read(self, raw: bytes) -> _Held:
        """Whatever holds for everybody who shows it."""
        parts = raw.split(b".")
        if len(parts) != 3:
            raise CredentialError("token", "not a signed JWT: expected three parts with dots between them")
        try:
            header = _read_header(_decoded(parts[0]))
            signature = _decoded(parts[2])
        except ValueError:
            raise CredentialError("token", "not a JWT with the header alg, kid and typ") from None
        if header.typ != TYPE:
            raise CredentialError("typ", f"not a handoff credential; expected {TYPE}")
        key = self._ring.find(header.kid)
        if key is None:
            raise CredentialError("kid", "no key of this gateway has signed it, or one that has been withdrawn")
        if header.alg != key.algorithm:
            raise CredentialError("alg", f"the key is for {key.algorithm}")
        if not key.verifies(signature, parts[0] + b"." + parts[1]):
            raise CredentialError("signature", "does not hold")
        try:
            claims = _read_claims(_decoded(parts[1]))
            credential = _credential(claims, key.kid)
        except (ValueError, RecursionError):
            raise CredentialError("token", "its claims are not those of a handoff credential") from None
        if claims.iss != self._issuer:
            raise CredentialError("iss", f"issued by somebody else; expected {self._issuer}")
        return _Held(credential, claims.nbf)


def _credential(claims: _Claims, kid: str) -> Credential:
    """What `claims` say.

    Raises:
        ValueError: one is no SPIFFE id or capability pattern, or the chain does not begin with ``sub``.

    """
    lineage: list[SpiffeId] = []
    actor: _Actor | None = claims.act
    while actor is not None:
        lineage.append(parse_spiffe_id(actor.sub))
        actor = actor.act
    if lineage[-1] != claims.sub:
        raise ValueError("act does not begin with sub")
    patterns: list[CapabilityPattern] = [parse_capability_pattern(text) for text in claims.cap]
    return Credential(
        id=claims.jti,
        parent=claims.parent,
        root=claims.txn,
        conversation=claims.conv,
        subject=lineage[-1],
        lineage=tuple(reversed(lineage)),
        audience=parse_spiffe_id(claims.aud),
        thumbprint=claims.cnf.thumbprint,
        capabilities=tuple(patterns),
        budget=claims.bud,
        expires=claims.exp,
        key=kid,
    )


def _decoded(text: bytes) -> bytes:
    """Base64url without padding; one text for each octets, so that no second spelling of a token passes."""
    octets = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if encoded(octets) != text:
        raise ValueError("not canonical base64url")
    return octets
