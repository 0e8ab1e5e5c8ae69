"""For those who write agents: sign what goes out, read what comes in, be a member meanwhile.

Enters: an ``httpx`` request, or an ASGI scope that the gateway has sent on.  Leaves: the request signed, or an
`Arrival` in ``scope["flight"]``.  Knows packets, and nothing of the gateway's inside.
"""

from gateway.agent.auth import FlightAuth
from gateway.agent.middleware import Arrival, FlightMiddleware
from gateway.agent.registrar import Registrar, RegistrationRefusedError

__all__ = ["Arrival", "FlightAuth", "FlightMiddleware", "Registrar", "RegistrationRefusedError"]
