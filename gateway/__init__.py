"""PhoenixFlight gateway: hands work from one AI agent to another.

Enters: HTTP requests carrying FlightPackets, over mTLS. Leaves: the same requests, decided, stamped and
recorded, at the right agent. Start reading in ``decision.py``, then ``proxy/exchange.py``.
"""

__version__ = "0.1.0"
