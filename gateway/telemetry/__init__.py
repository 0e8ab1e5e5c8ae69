"""What is seen from outside: metrics, spans, the access log.

Enters: a `Handoff` and its trace; a decision.  Leaves: numbers for Prometheus, spans over OTLP, lines of JSON.
Knows nothing of policies or sockets; never holds up a packet.
"""
