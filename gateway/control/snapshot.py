"""From files to a `Snapshot`: everything is read and checked before anything changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.authority import Authority, Entry, load_key_ring
from gateway.control.config import GatewaySpec
from gateway.control.files import read_settled, read_sources, read_text
from gateway.decision import EMPTY, Snapshot
from gateway.documents import DocumentError, Problem, parse
from gateway.membership.file import ListedAgents, load_listed
from gateway.packet.jwks import load_keys
from gateway.packet.keys import KeySet
from gateway.policy import PolicySet
from gateway.policy.brokering import Brokering
from gateway.policy.exchange import Exchanges
from gateway.policy.lint import lint
from gateway.policy.load import LoadedPolicies, load_all
from gateway.policy.membership import MembershipPolicySet
from gateway.revocations import load_entries
from gateway.routing import Agent
from gateway.snapshot import offered_by

REVISION_CHARACTERS = 12

Everyone = Callable[[ListedAgents], tuple[Agent, ...]]
"""From the agents of the files to all members as they are now, sorted by name."""


def only_files(listed: ListedAgents) -> tuple[Agent, ...]:
    """The members where there are no others: those of the files whose capabilities are known."""
    return tuple(agent for agent in listed.agents if agent.capabilities)


@dataclass(frozen=True, slots=True)
class Sources:
    """The text of every file that a snapshot is made of."""

    policies: dict[str, str]
    members: tuple[str, str]
    """Path and text."""
    keys: tuple[str, str] | None = None
    """Path and text."""
    authority: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Path and text of each file with keys of the authority."""

    @property
    def files(self) -> list[str]:
        """The paths of all."""
        return [
            *sorted(self.policies),
            self.members[0],
            *(self.keys[:1] if self.keys else ()),
            *(path for path, _ in self.authority),
        ]

    @property
    def revision(self) -> str:
        """A hash of the content, whatever the folders are called."""
        digest = hashlib.sha256()
        for name, text in sorted((Path(path).name, text) for path, text in self.policies.items()):
            for part in ("policy", name, text):
                digest.update(b"%d:" % len(part.encode()) + part.encode())
        digest.update(b"members:" + self.members[1].encode())
        if self.keys is not None:
            digest.update(b"keys:" + self.keys[1].encode())
        for _, text in self.authority:
            digest.update(b"authority:%d:" % len(text.encode()) + text.encode())
        return digest.hexdigest()[:REVISION_CHARACTERS]


class Loaded(NamedTuple):
    """A snapshot, and what there is to tell of it."""

    sources: Sources
    listed: ListedAgents
    """The agents of the files."""
    membership: MembershipPolicySet
    """Who may register which agents."""
    snapshot: Snapshot
    warnings: tuple[Problem, ...]
    """What is valid, but hardly what somebody meant."""
    policy_files: Mapping[str, str]
    """Where each policy stands, by its name."""
    exchanges: Exchanges
    """Who may have tokens for third parties."""

    @property
    def secret_files(self) -> frozenset[Path]:
        """Every file that a secret stands in."""
        return self.snapshot.brokering.files | self.exchanges.files


def read(config: GatewaySpec) -> Sources:
    """Read the files that `config` names, all of one moment.

    Raises:
        DocumentError: one cannot be read, or they keep changing.

    """
    signing = config.authority.keys if config.authority is not None else ()
    paths = (config.policies, config.members, *((config.keys,) if config.keys is not None else ()), *signing)
    return read_settled(paths, lambda: _read(config))


def _read(config: GatewaySpec) -> Sources:
    keys = (str(config.keys), read_text(config.keys)) if config.keys is not None else None
    signing = config.authority.keys if config.authority is not None else ()
    authority = tuple((str(file), read_text(file)) for file in signing)
    return Sources(read_sources(config.policies), (str(config.members), read_text(config.members)), keys, authority)


def read_revoked(config: GatewaySpec) -> tuple[Entry, ...]:
    """What documents revoke.

    Raises:
        DocumentError: one cannot be read, is not valid, or they keep changing.

    """
    path = config.revocations.path
    if path is None:
        return ()
    return read_settled((path,), lambda: load_entries(read_sources(path)))


def build(
    sources: Sources,
    config: GatewaySpec,
    everyone: Everyone = only_files,
    before: Snapshot = EMPTY,
) -> Loaded:
    """Check everything, then make the snapshot.

    Args:
        sources: what the files say.
        config: the configuration.
        everyone: adds the members that are not in files.
        before: what is in force.

    Raises:
        DocumentError: with every problem of every file.

    """
    problems: list[Problem] = []
    policies = LoadedPolicies((), ())
    listed = ListedAgents((), frozenset())
    try:
        policies = load_all(sources.policies)
    except DocumentError as error:
        problems += error.problems
    try:
        listed = load_listed(sources.members[1], sources.members[0])
    except DocumentError as error:
        problems += error.problems
    keys = KeySet()
    if sources.keys is not None:
        try:
            keys = load_keys(sources.keys[1], sources.keys[0])
        except DocumentError as error:
            problems += error.problems
    authority: Authority | None = None
    if config.authority is not None:
        try:
            authority = Authority(load_key_ring(sources.authority), config.authority)
        except DocumentError as error:
            problems += error.problems
    for agent in listed.agents:
        if agent.tls and config.identity is None:
            problems.append(
                Problem(sources.members[0], 1, 1, f"{agent.name} is reached over TLS, which needs spec.identity")
            )
    if config.recorder is None:
        problems += [
            each.document.problem(("spec", "rules", index, "audit"), "what must be recorded needs spec.recorder")
            for each in policies.trust
            for index, rule in enumerate(each.policy.spec.rules)
            if rule.audit is not None
        ]
    if problems:
        raise DocumentError(problems)
    compiled = PolicySet(each.policy for each in policies.trust)
    members = everyone(listed)
    snapshot = Snapshot(
        sources.revision,
        compiled,
        members,
        config.trusted_hops,
        keys,
        Brokering(policies.credentials),
        zone=config.zone,
        points=config.ring.points,
        offered=offered_by(members, before.offered),
        authority=authority,
    )
    snapshot.routes.all_ready()  # what takes longest, before a packet asks for it
    document = parse(sources.members[1], sources.members[0])[0]
    return Loaded(
        sources,
        listed,
        MembershipPolicySet(policies.membership),
        snapshot,
        tuple(
            lint(
                policies.trust,
                listed.agents,
                document,
                others=config.kubernetes is not None or bool(policies.membership),
            )
        ),
        {each.policy.metadata.name: each.document.source for each in policies.trust},
        Exchanges(policies.exchanges),
    )
