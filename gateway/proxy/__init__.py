"""The data plane: sockets in, a decision, sockets out.

Enters: bytes of callers.  Leaves: bytes to agents, and a `Handoff` for each request.
Reads one `Snapshot` reference per request; knows nothing of files, documents or Kubernetes.
"""
