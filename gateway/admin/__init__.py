"""The admin port: health, readiness, metrics, status, the snapshot and explanations.  Starlette on Hypercorn.

Enters: the running gateway.  Leaves: answers for probes, Prometheus and people; no secret is in any of them.
"""
