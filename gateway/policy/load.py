"""From the text of policy files to checked policies; all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.documents import Document, DocumentError, Problem, check_kind, parse
from gateway.policy.model import TrustPolicy


class LoadedPolicy(NamedTuple):
    """A policy, and the document that it was read from."""

    policy: TrustPolicy
    document: Document


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
    found: dict[str, LoadedPolicy] = {}
    problems: list[Problem] = []
    for source in sorted(sources):
        try:
            documents = parse(sources[source], source)
        except DocumentError as error:
            problems += error.problems
            continue
        for document in documents:
            try:
                check_kind(document, "TrustPolicy")
                policy = document.validate(TrustPolicy)
            except DocumentError as error:
                problems += error.problems
                continue
            name = policy.metadata.name
            if name in found:
                first = found[name].document.problem(("metadata", "name"), "")
                message = f"a policy named {name!r} stands in {first.source}:{first.line} already"
                problems.append(document.problem(("metadata", "name"), message))
            else:
                found[name] = LoadedPolicy(policy, document)
    if problems:
        raise DocumentError(problems)
    return tuple(found[name] for name in sorted(found))
