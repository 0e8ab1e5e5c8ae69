"""From the text of policy files to checked policies; all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from gateway.documents import Document, DocumentError, Problem, check_kind, parse
from gateway.policy.brokering import UpstreamCredential
from gateway.policy.exchange import TokenExchange
from gateway.policy.membership import MembershipPolicy
from gateway.policy.model import TrustPolicy

Policy = TypeVar("Policy", TrustPolicy, MembershipPolicy, UpstreamCredential, TokenExchange)

_KINDS = ("TrustPolicy", "MembershipPolicy", "UpstreamCredential", "TokenExchange")


class LoadedPolicy(NamedTuple):
    """A policy, and the document that it was read from."""

    policy: TrustPolicy
    document: Document


class LoadedPolicies(NamedTuple):
    """Everything in the policy files, each kind sorted by name."""

    trust: tuple[LoadedPolicy, ...]
    """Who may ask which agents for what."""
    membership: tuple[MembershipPolicy, ...]
    """Who may register which agents."""
    credentials: tuple[tuple[UpstreamCredential, str], ...] = ()
    """Which agents are given which secrets, and where each document stands; so do `exchanges`."""
    exchanges: tuple[tuple[TokenExchange, str], ...] = ()
    """Who may have tokens for whom."""


def load_policies(sources: Mapping[str, str]) -> tuple[TrustPolicy, ...]:
    """The TrustPolicy documents in `sources` (file name to text), sorted by name.

    Raises:
        DocumentError: with every problem of every file.

    """
    return tuple(loaded.policy for loaded in load_documents(sources))


def load_documents(sources: Mapping[str, str]) -> tuple[LoadedPolicy, ...]:
    """As `load_policies`, with what tells where each part stands.

    Raises:
        DocumentError: with every problem of every file.

    """
    return load_all(sources).trust


def load_all(sources: Mapping[str, str]) -> LoadedPolicies:
    """The policies of every kind in `sources` (file name to text).

    Raises:
        DocumentError: with every problem of every file.

    """
    trust: dict[str, tuple[TrustPolicy, Document]] = {}
    membership: dict[str, tuple[MembershipPolicy, Document]] = {}
    credentials: dict[str, tuple[UpstreamCredential, Document]] = {}
    exchanges: dict[str, tuple[TokenExchange, Document]] = {}
    problems: list[Problem] = []
    for source in sorted(sources):
        try:
            documents = parse(sources[source], source)
        except DocumentError as error:
            problems += error.problems
            continue
        for document in documents:
            try:
                check_kind(document, *_KINDS)
                match document.kind:
                    case "TrustPolicy":
                        _add(trust, document, document.validate(TrustPolicy))
                    case "MembershipPolicy":
                        _add(membership, document, document.validate(MembershipPolicy))
                    case "UpstreamCredential":
                        _add(credentials, document, document.validate(UpstreamCredential))
                    case _:
                        _add(exchanges, document, document.validate(TokenExchange))
            except DocumentError as error:
                problems += error.problems
    if problems:
        raise DocumentError(problems)
    return LoadedPolicies(
        tuple(LoadedPolicy(*trust[name]) for name in sorted(trust)),
        tuple(membership[name][0] for name in sorted(membership)),
        tuple((document, where.source) for document, where in (credentials[name] for name in sorted(credentials))),
        tuple((document, where.source) for document, where in (exchanges[name] for name in sorted(exchanges))),
    )


def _add(found: dict[str, tuple[Policy, Document]], document: Document, policy: Policy) -> None:
    """Add `policy` to those of its kind.

    Raises:
        DocumentError: there is one of its name.

    """
    name = policy.metadata.name
    if name in found:
        first = found[name][1].problem(("metadata", "name"), "")
        message = f"a policy named {name!r} stands in {first.source}:{first.line} already"
        raise DocumentError([document.problem(("metadata", "name"), message)])
    found[name] = policy, document
