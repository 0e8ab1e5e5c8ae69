"""What agents ask of the gateway itself: ``PUT``, ``GET`` and ``DELETE /members/NAME``."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from gateway.identity import Principal
from gateway.membership.registration import (
    DEFAULT_DRAIN_S,
    application,
    grant,
    read_body,
    read_drain,
    read_name,
    told,
)
from gateway.membership.registration_store import RegistrationStore, Stored
from gateway.messages import RequestHead, ResponseHead
from gateway.policy.membership import MembershipPolicySet
from gateway.refusal import Reason, Refusal, answer

UNAVAILABLE_RETRY_AFTER_S: Final = 1
FULL_RETRY_AFTER_S: Final = 30

log = logging.getLogger(__name__)

Answer = tuple[ResponseHead, bytes]

_SHOWN: Final = "shown"
_ROUTINE = frozenset({Stored.RENEWED.value, _SHOWN})
"""What comes all the time, and says nothing new."""
_REFUSED = {
    Stored.TAKEN: Refusal(
        Reason.NAME_TAKEN, "another principal has registered this name; it is free when its lease ends"
    ),
    Stored.UNKNOWN: Refusal(Reason.NOT_REGISTERED, "you have no registration of this name; PUT makes one"),
    Stored.FULL: Refusal(
        Reason.TOO_MANY_REGISTRATIONS, "the gateway keeps no more registrations", retry_after_s=FULL_RETRY_AFTER_S
    ),
    Stored.TOO_MANY: Refusal(
        Reason.TOO_MANY_REGISTRATIONS,
        "you have as many registrations as one principal may have; retire one",
        retry_after_s=FULL_RETRY_AFTER_S,
    ),
    Stored.UNAVAILABLE: Refusal(
        Reason.OVERLOADED,
        "the store of registrations does not answer; try again later",
        retry_after_s=UNAVAILABLE_RETRY_AFTER_S,
    ),
}
_RESERVED = Refusal(Reason.NAME_TAKEN, "the gateway's own configuration has a member of this name; choose another")


class _Result(NamedTuple):
    outcome: str
    """A `Stored` value, ``shown``, or the slug of the refusal's reason."""
    answer: Answer | Refusal
    rule: str = ""


def _refused(refusal: Refusal) -> _Result:
    rule = f"{refusal.policy}/{refusal.rule}" if refusal.rule else ""
    return _Result(refusal.reason.slug, refusal, rule)


def _json(status: int, content: Mapping[str, object]) -> Answer:
    body = msgspec.json.encode(content)
    return ResponseHead(status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]), body


class Registrations:
    """Answers agents that register themselves."""

    prefix: Final = "/members/"

    def __init__(
        self,
        store: RegistrationStore,
        *,
        policies: Callable[[], MembershipPolicySet],
        taken: Callable[[str], bool],
    ) -> None:
        """Answer from `store`.

        Args:
            store: where registrations are kept.
            policies: gives those in force.
            taken: whether a name is that of a member from another source.

        """
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """How many requests had which outcome, by method and `_Result.outcome`."""
        self._store = store
        self._policies = policies
        self._taken = taken

    async def handle(self, head: RequestHead, principal: Principal, body: bytes, peer: str) -> Answer | Refusal:
        """Answer one request.

        Args:
            head: of the request; its path begins with ``/members/``.
            principal: who asks.
            body: the whole of it.
            peer: the IP address that it came from.

        """
        method, path = head.method.decode("latin-1"), head.path.decode("latin-1")
        target, _, query = path.partition("?")
        asked = target.removeprefix(self.prefix)
        try:
            name = read_name(asked)
            match method:
                case "PUT":
                    result = await self._put(principal, name, body, peer)
                case "DELETE":
                    result = await self._delete(principal, name, query)
                case "GET":
                    result = self._get(principal, name)
                case _:
                    method = "other"  # it becomes a label of a metric, and is the caller's text
                    result = _not_allowed()
        except ValueError as error:
            result = _refused(Refusal(Reason.MALFORMED_REGISTRATION, str(error)))
        self.outcomes[method, result.outcome] += 1
        routine = result.outcome in _ROUTINE
        log.log(
            logging.DEBUG if routine else logging.INFO,
            "registration: %s of %.253r by %s: %s%s",
            method,
            asked,
            principal.id,
            result.outcome,
            f", rule {result.rule}" if result.rule else "",
        )
        return result.answer

    async def _put(self, principal: Principal, name: str, body: bytes, peer: str) -> _Result:
        wanted = read_body(body)
        admitting = self._policies().admits(principal, application(name, wanted, peer))
        if isinstance(admitting, Refusal):
            return _refused(admitting)
        if self._taken(name):
            return _refused(_RESERVED)
        registration = grant(name, wanted, principal.id, admitting)
        stored = await self._store.put(registration)
        refusal = _REFUSED.get(stored)
        if refusal is not None:
            return _refused(refusal)
        status = 201 if stored is Stored.CREATED else 200
        return _Result(stored.value, _json(status, told(registration, registration.lease_s)), admitting.name)

    async def _delete(self, principal: Principal, name: str, query: str) -> _Result:
        drain_s = DEFAULT_DRAIN_S
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key != "drain":
                raise ValueError(f"unknown parameter {key[:80]!r}; known here: drain")
            drain_s = read_drain(value)
        stored = await self._store.retire(name, principal.id, drain_s)
        refusal = _REFUSED.get(stored)
        if refusal is not None:
            return _refused(refusal)
        if not drain_s:
            return _Result(stored.value, (ResponseHead(204, []), b""))
        return _Result(stored.value, _json(202, {"name": name, "state": "draining", "expiresInSeconds": drain_s}))

    def _get(self, principal: Principal, name: str) -> _Result:
        registration = self._store.get(name)
        if registration is None or registration.owner != principal.id:
            return _refused(_REFUSED[Stored.UNKNOWN])
        return _Result(_SHOWN, _json(200, told(registration, self._store.expires_in_s(name))), registration.rule)


def _not_allowed() -> _Result:
    refusal = Refusal(Reason.METHOD_NOT_ALLOWED, "PUT registers and renews, GET tells, DELETE retires")
    head, body = answer(refusal, content_type=b"", flight_id="", revision="")
    # RFC 9110 section 15.5.6: a 405 says what is allowed.
    head.fields.append((b"allow", b"GET, PUT, DELETE"))
    return _Result(refusal.reason.slug, (head, body))
