"""From files to a `Snapshot`: everything is read and checked before anything changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gateway.authority import Entry
from gateway.control.config import GatewaySpec
from gateway.control.files import read_settled, read_sources, read_text
from gateway.decision import EMPTY, Snapshot
from gateway.documents import DocumentError, Problem, parse
from gateway.judgement import offered_by
from gateway.membership.file import ListedAgents, load_listed
from gateway.packet.jwks import load_keys
from gateway.packet.keys import KeySet
from gateway.policy import PolicySet
from gateway.policy.lint import lint
from gateway.policy.load import LoadedPolicies, load_all
from gateway.policy.membership import MembershipPolicySet
from gateway.revocations import load_entries
from gateway.routing import Agent

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

    @property
    def files(self) -> list[str]:
        """The paths of all."""
        return [*sorted(self.policies), self.members[0], *(self.keys[:1] if self.keys else ())]

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


def read(config: GatewaySpec) -> Sources:
    """Read the files that `config` names, all of one moment.

    Raises:
        DocumentError: one cannot be read, or they keep changing.

    """
    paths = (config.policies, config.members, *((config.keys,) if config.keys is not None else ()))
    return read_settled(paths, lambda: _read(config))


def _read(config: GatewaySpec) -> Sources:
    keys = (str(config.keys), read_text(config.keys)) if config.keys is not None else None
    return Sources(read_sources(config.policies), (str(config.members), read_text(config.members)), keys)


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
    for agent in listed.agents:
        if agent.tls and config.identity is None:
            problems.append(
                Problem(sources.members[0], 1, 1, f"{agent.name} is reached over TLS, which needs spec.identity")
            )
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
        zone=config.zone,
        points=config.ring.points,
        offered=offered_by(members, before.offered),
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
    )
