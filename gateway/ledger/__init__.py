"""Work that is to be done once: what has begun, and what came of it.

Enters: keys, digests, answers, the time.  Leaves: whether to begin, an answer that is known, or why neither.
Knows nothing of packets, rings or sockets; only `redis_ledger` does I/O.
"""

from gateway.ledger.ledger import Found, Ledger, Standing, StoredAnswer
from gateway.ledger.memory import LedgerMemory
from gateway.ledger.spec import LedgerSpec, Twins

__all__ = ["Found", "Ledger", "LedgerMemory", "LedgerSpec", "Standing", "StoredAnswer", "Twins"]
