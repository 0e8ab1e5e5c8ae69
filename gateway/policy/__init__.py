"""Trust policy: who may ask which agents for what.  Pure.

Enters: TrustPolicy documents, then a principal, its packet and what is proven about it.  Leaves: a `Ruling`.
Knows nothing of sockets, rings, members' whereabouts or the clock.
"""

from gateway.policy.engine import Allow, Candidates, Deny, PolicySet, Ruling, rule_on, weigh
from gateway.policy.facts import NO_EVIDENCE, Evidence, PacketFacts
from gateway.policy.rules import Ask, CompiledRule, ContextTerms, Limit, Outcome

__all__ = [
    "NO_EVIDENCE",
    "Allow",
    "Ask",
    "Candidates",
    "CompiledRule",
    "ContextTerms",
    "Deny",
    "Evidence",
    "Limit",
    "Outcome",
    "PacketFacts",
    "PolicySet",
    "Ruling",
    "rule_on",
    "weigh",
]
