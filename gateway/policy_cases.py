"""PolicyTest documents: packets, and what policies must make of them.  Pure.

Enters: a document, a `Snapshot`, the time.  Leaves: a `Problem` for each case that comes out otherwise.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from gateway.decision import Forward, Snapshot, Verdict, decide
from gateway.documents import API_VERSION, Document, ErrorAt, Metadata, Problem, Spec
from gateway.identity import Principal, SpiffeId, parse_spiffe_id
from gateway.messages import RequestHead
from gateway.packet import fields as names
from gateway.policy.facts import assumed_evidence
from gateway.refusal import Reason

Id = Annotated[SpiffeId, BeforeValidator(lambda text: parse_spiffe_id(str(text)))]

_SLUGS = sorted(reason.slug for reason in Reason)


def _time(value: object) -> float:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"expected a time with its zone, such as 2026-01-31T12:00:00Z, not {value!r}")
    return moment.timestamp()


class Expect(Enum):
    """What is to become of a packet."""

    ALLOW = "allow"
    ASK = "ask"
    """It is let through once it is approved."""
    DENY = "deny"


class Case(Spec):
    """One packet, and what is expected."""

    name: str = Field(min_length=1)
    from_: Annotated[Id | None, Field(alias="from")] = None
    """Without one the caller shows no certificate."""
    capability: str = ""
    """``flight-capability``, unless `headers` has it."""
    headers: dict[str, str] = {}
    method: str = Field(default="POST", min_length=1)
    path: str = Field(default="/", pattern=r"^/")
    signer: Id | None = None
    """Who is supposed to have signed the packet, with all its fields."""
    now: Annotated[float, BeforeValidator(_time)] | None = None
    """The present, unless it is set."""
    expect: Expect
    rule: str = ""
    """The deciding rule, as ``policy/rule``."""
    reason: str = ""
    """Of the refusal."""
    agent: str = ""
    """One of the agents that the packet may go to."""

    @model_validator(mode="after")
    def _expectations_agree(self) -> Case:
        if self.reason and self.expect is not Expect.DENY:
            raise ErrorAt("only a refusal has a reason", "reason")
        if self.reason and self.reason not in _SLUGS:
            raise ErrorAt(f"expected one of {', '.join(_SLUGS)}", "reason")
        if self.agent and self.expect is Expect.DENY:
            raise ErrorAt("a refused packet goes to no agent", "agent")
        return self

    @property
    def head(self) -> RequestHead:
        """The packet as a request."""
        fields = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        if self.capability:
            fields.append((names.CAPABILITY, self.capability.encode()))
        return RequestHead(self.method.encode(), b"https", b"gateway", self.path.encode(), fields)


class PolicyTestSpec(Spec):
    """What is tested, and the cases."""

    policies: str = Field(min_length=1)
    """A folder or file, relative to the test's; so is `members`."""
    members: str = Field(min_length=1)
    cases: Annotated[tuple[Case, ...], Field(min_length=1)]


class PolicyTest(Spec):
    """A document of cases."""

    api_version: Literal["phoenixflight.io/v1"] = API_VERSION
    kind: Literal["PolicyTest"] = "PolicyTest"
    metadata: Metadata
    spec: PolicyTestSpec


def failures(test: PolicyTest, document: Document, snapshot: Snapshot, now: float) -> list[Problem]:
    """Decide each case; what came otherwise than expected, at the case in `document`.

    Args:
        test: the cases.
        document: where they stand.
        snapshot: what they are decided under.
        now: seconds since the epoch, for cases that set no time.

    """
    problems: list[Problem] = []
    for index, case in enumerate(test.spec.cases):
        head = case.head
        verdict = decide(
            head,
            Principal(case.from_) if case.from_ else None,
            snapshot,
            now if case.now is None else case.now,
            lambda _: 0,
            assume=assumed_evidence(case.signer, head.fields),
        )
        expected, came = _held_against(case, verdict)
        if expected:
            message = f"{case.name}: expected {expected}; came {came}"
            problems.append(document.problem(("spec", "cases", index, "name"), message))
    return problems


def _held_against(case: Case, verdict: Verdict) -> tuple[str, str]:
    """What was expected and what came; nothing where they agree."""
    agents: tuple[str, ...] = ()
    if isinstance(verdict, Forward):
        granted = verdict.route.grants[verdict.agent.name]
        came = Expect.ASK if granted.approvals else Expect.ALLOW
        reason, rule = "", f"{granted.policy}/{granted.rule}"
        agents = tuple(agent.name for agent in verdict.route.ring.agents)
        told = f"{came.value} by {rule}, to {' or '.join(agents)}"
    else:
        refusal = verdict.refusal
        came, reason = Expect.DENY, refusal.reason.slug
        rule = f"{refusal.policy}/{refusal.rule}" if refusal.policy else ""
        told = f"deny ({reason}{f', by {rule}' if rule else ''}): {refusal.detail}"
    expected = case.expect.value
    expected += f" by {case.rule}" if case.rule else ""
    expected += f" ({case.reason})" if case.reason else ""
    expected += f", to {case.agent}" if case.agent else ""
    as_expected = (
        came is case.expect
        and case.rule in ("", rule)
        and case.reason in ("", reason)
        and (not case.agent or case.agent in agents)
    )
    return ("", "") if as_expected else (expected, told)
