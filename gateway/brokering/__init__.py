"""Secrets for agents, and tokens for third parties.

Enters: what `gateway.policy` says is due (`Brokered`, `Exchange`), files, authorization servers' answers, the time.
Leaves: header fields for an agent, tokens for callers, or why there are none.  Fails closed, and tells of no secret.
Knows nothing of packets' ways and of sockets that it did not open itself.
"""
