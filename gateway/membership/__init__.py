"""Who the agents are: the sources that say so.

Enters: documents.  Leaves: `Agent` values.  Knows nothing of packets or policies.
"""
