"""What is valid in a set of policies, but hardly what somebody meant.  Pure.

Enters: policies with their documents, and the agents there are.  Leaves: warnings, as `Problem` values.
A warning is certain: where inclusion of patterns or a condition leaves a doubt, there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from gateway.documents import Document, Location, Problem
from gateway.policy.engine import PolicySet
from gateway.policy.facts import ON_PACKETS
from gateway.policy.load import LoadedPolicy
from gateway.policy.model import Effect
from gateway.policy.patterns import GlobIndex
from gateway.policy.rules import CompiledRule
from gateway.routing.agent import Agent

Place = tuple[Document, Location]
"""Where a rule stands."""


def lint(
    loaded: Sequence[LoadedPolicy], agents: Sequence[Agent], members: Document, *, others: bool = False
) -> list[Problem]:
    """The warnings about `loaded`, as `load_documents` gives it, and about the `agents` listed in `members`.

    Where there are `others`, which nobody knows yet, they may offer anything.
    """
    rules = PolicySet(each.policy for each in loaded).rules
    places = [
        (each.document, ("spec", "rules", index)) for each in loaded for index in range(len(each.policy.spec.rules))
    ]
    denied = dict(_covered(rules, [rule for rule in rules if rule.denies]))
    asked = dict(_covered(rules, [rule for rule in rules if rule.ask]))
    # An agent card, which is not read here, may offer anything.
    certain = not others and not any(listed.get("agentCard") for listed in members.content["spec"]["agents"])
    problems = list(_unoffered(loaded, agents)) if certain else []
    for rule, (document, location) in zip(rules, places, strict=True):
        deny = denied.get(rule.number)
        if deny is not None:
            told = _told_at(places[deny.number], deny)
            message = f"{rule.name!r} can never allow: {told} denies all that it covers; narrow that, or remove this"
            problems.append(document.problem(location, message))
        ask = asked.get(rule.number)
        if ask is not None and deny is None and not rule.ask:
            told = _told_at(places[ask.number], ask)
            message = f"{rule.name!r} never allows: {told} asks about all that it covers; narrow that, or remove this"
            problems.append(document.problem(location, message))
    problems += _constant(rules, places)
    problems += _duplicates(rules, places)
    if certain:
        problems += _unmet(rules, places, agents)
    live = [rule for rule in rules if not (rule.denies or rule.shadow or rule.number in denied)]
    problems += _unreachable(live, agents, members)
    return sorted(problems, key=lambda problem: (problem.source, problem.line, problem.column))


def _told_at(place: Place, rule: CompiledRule) -> str:
    document, location = place
    at = document.problem(location, "")
    return f"{rule.policy}/{rule.name} ({at.source}:{at.line})"


def _unoffered(loaded: Iterable[LoadedPolicy], agents: Iterable[Agent]) -> Iterator[Problem]:
    """Capabilities that a policy allows, and that no agent has.  To deny what nobody offers is prudence."""
    offered = {name for agent in agents for name in agent.capabilities}
    for policy, document in loaded:
        if all(rule.effect is Effect.DENY for rule in policy.spec.rules):
            continue
        for index, pattern in enumerate(policy.spec.capabilities):
            if not any(pattern.matches(name) for name in offered):
                message = f"no agent offers anything that {pattern.text!r} covers; check the spelling, or remove it"
                yield document.problem(("spec", "capabilities", index), message)


def _covered(rules: Iterable[CompiledRule], stronger: Iterable[CompiledRule]) -> Iterator[tuple[int, CompiledRule]]:
    """The numbers of rules that allow and that `stronger` ones leave nothing of, each with one of these."""
    absolute = {rule.number: rule for rule in stronger if not (rule.conditional or rule.narrow or rule.shadow)}
    callers = GlobIndex((glob, rule.number) for rule in absolute.values() for glob in rule.spec.from_)
    capabilities = GlobIndex((glob, rule.number) for rule in absolute.values() for glob in rule.capabilities)
    for rule in rules:
        if rule.denies:
            continue
        covering = [
            callers.including(caller) & capabilities.including(capability)
            for caller in rule.spec.from_
            for capability in rule.capabilities
        ]
        if all(covering):
            yield rule.number, absolute[covering[0].bit_length() - 1]


def _constant(rules: Iterable[CompiledRule], places: Sequence[Place]) -> Iterator[Problem]:
    """Conditions that ask nothing of the packet and do not hold."""
    for rule, (document, location) in zip(rules, places, strict=True):
        when = rule.spec.when
        if when is None or when.variables:
            continue
        value = when.evaluate(ON_PACKETS.nothing)
        if value is not True:
            why = "is always false" if value is False else f"can never be evaluated ({value})"
            message = f"'when' of {rule.name!r} {why}; make it ask something of the packet, or remove the rule"
            yield document.problem((*location, "when"), message)


def _duplicates(rules: Iterable[CompiledRule], places: Sequence[Place]) -> Iterator[Problem]:
    """Rules that are written alike but for their names and the order of lists."""
    seen: dict[str, CompiledRule] = {}
    for rule, (document, location) in zip(rules, places, strict=True):
        written = dict(document.content["spec"]["rules"][location[2]])
        del written["name"]
        written["from"] = sorted(written["from"])
        key = json.dumps([rule.shadow, sorted(each.text for each in rule.capabilities), written], sort_keys=True)
        first = seen.setdefault(key, rule)
        if first is not rule:
            message = f"{rule.name!r} says again what {_told_at(places[first.number], first)} says; remove one"
            yield document.problem(location, message)


def _unmet(rules: Iterable[CompiledRule], places: Sequence[Place], agents: Sequence[Agent]) -> Iterator[Problem]:
    """Allow rules whose ``to`` fits none of the agents that offer what their policy speaks about."""
    for rule, (document, location) in zip(rules, places, strict=True):
        if rule.denies or rule.spec.to is None:
            continue
        offering = [agent for agent in agents if _offers(agent, rule)]
        if offering and not any(_fits(agent, rule) for agent in offering):
            message = f"no agent that offers these capabilities fits 'to' of {rule.name!r}; check trust and labels"
            yield document.problem((*location, "to"), message)


def _unreachable(live: Sequence[CompiledRule], agents: Iterable[Agent], members: Document) -> Iterator[Problem]:
    for index, listed in enumerate(members.content["spec"]["agents"]):
        agent = next(each for each in agents if each.name == listed["name"])
        if not listed.get("agentCard") and not any(_offers(agent, rule) and _fits(agent, rule) for rule in live):
            message = f"no rule allows anybody to reach {agent.name!r}; add one, or remove the agent"
            yield members.problem(("spec", "agents", index, "name"), message)


def _offers(agent: Agent, rule: CompiledRule) -> bool:
    return any(pattern.matches(name) for pattern in rule.capabilities for name in agent.capabilities)


def _fits(agent: Agent, rule: CompiledRule) -> bool:
    return agent.trust >= rule.min_trust and rule.labels.issubset(agent.labels)
