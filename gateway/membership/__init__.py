"""Who the agents are: the sources that say so.

Enters: documents, registrations, agent cards.  Leaves: `Agent` values.  Knows nothing of packets, and of policies only
who may register.
"""
