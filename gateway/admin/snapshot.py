"""What is in force, as ``/snapshot`` tells it: the names are those of the documents."""

from __future__ import annotations

from typing import Any

from gateway.decision import Snapshot
from gateway.policy.model import Approval, Grant, Limits, Require, Rule, TrustPolicy
from gateway.routing import Agent


def described(snapshot: Snapshot) -> dict[str, Any]:
    """`snapshot` as JSON values; what a rule does not say is ``null``."""
    return {
        "revision": snapshot.revision,
        "agents": [_agent(agent) for agent in snapshot.agents],
        "policies": [_policy(policy) for policy in snapshot.policies.policies],
    }


def _agent(agent: Agent) -> dict[str, Any]:
    return {
        "name": agent.name,
        "address": f"{agent.host}:{agent.port}",
        "capabilities": sorted(agent.capabilities),
        "trust": agent.trust,
        "labels": dict(agent.labels),
        "protocol": agent.protocol.value,
        "spiffeId": agent.spiffe_id,
        "state": agent.state.value,
        "reliability": agent.reliability,
        "zone": agent.zone,
        "contextPath": agent.context_path,
    }


def _policy(policy: TrustPolicy) -> dict[str, Any]:
    return {
        "name": policy.metadata.name,
        "mode": policy.spec.mode.value,
        "capabilities": [pattern.text for pattern in policy.spec.capabilities],
        "rules": [_rule(rule) for rule in policy.spec.rules],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "effect": rule.effect.value,
        "from": [pattern.text for pattern in rule.from_],
        "to": rule.to.model_dump(by_alias=True) if rule.to else None,
        "when": rule.when.text if rule.when else None,
        "agentWhen": rule.agent_when.text if rule.agent_when else None,
        "require": _require(rule.require) if rule.require else None,
        "grant": _grant(rule.grant) if rule.grant else None,
        "limits": _limits(rule.limits) if rule.limits else None,
        "deliver": {"context": rule.deliver.context.value} if rule.deliver else None,
        "approval": _approval(rule.approval) if rule.approval else None,
        "audit": rule.audit.value if rule.audit else None,
    }


def _require(require: Require) -> dict[str, Any]:
    return {
        "signature": require.signature,
        "signers": [pattern.text for pattern in require.signers] if require.signers else None,
        "contentDigest": require.content_digest,
        "context": require.context,
        "credential": require.credential,
    }


def _approval(approval: Approval) -> dict[str, Any]:
    approvers = approval.approvers
    return {
        "timeout": f"{approval.timeout_s:g}s",
        "approvers": [each if isinstance(each, str) else each.text for each in approvers] if approvers else None,
        "reason": approval.reason,
    }


def _grant(grant: Grant) -> dict[str, Any]:
    return {
        "capabilities": [pattern.text for pattern in grant.capabilities],
        "budget": grant.budget,
        "ttl": f"{grant.ttl_s:g}s",
    }


def _limits(limits: Limits) -> dict[str, Any]:
    return {"rate": limits.rate.text, "per": limits.per.value}
