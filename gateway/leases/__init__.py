"""Where each conversation is: an owner, kept while agents come and go.

Enters: keys, the ring's choice, what is known of the owner, the time.  Leaves: `Taken`, an owner and why.
Knows nothing of packets, policies, rings or sockets; only `redis_leases` does I/O.
"""

from gateway.leases.lease import Fate, LeaseTable, Taken, Use
from gateway.leases.memory import LeaseMemory
from gateway.leases.spec import LeaseSpec

__all__ = ["Fate", "LeaseMemory", "LeaseSpec", "LeaseTable", "Taken", "Use"]
