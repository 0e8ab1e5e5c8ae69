"""What is revoked: by documents, by operators here, and by operators at other replicas.

Enters: documents, orders, the time.  Leaves: a `Revocations` value, each time that it changes.
Knows nothing of packets, rings or sockets; only `redis_orders` does I/O, and `keep`, which writes a file.
"""

from gateway.revocations.book import Book, OrderError
from gateway.revocations.load import load_entries
from gateway.revocations.orders import MemoryOrders, Orders
from gateway.revocations.spec import RevocationSpec

__all__ = ["Book", "MemoryOrders", "OrderError", "Orders", "RevocationSpec", "load_entries"]
