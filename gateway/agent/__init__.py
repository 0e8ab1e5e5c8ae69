"""For those who write agents: sign what goes out, read what comes in, hand it on, be a member meanwhile.

Enters: an ``httpx`` request, or an ASGI scope that the gateway has sent on.  Leaves: the request signed, or an
`Arrival` in ``scope["flight"]``, and what is handed on of it.  Knows packets, and nothing of the gateway's inside.
"""

from gateway.agent.arrival import Arrival, Held, NoTimeLeftError
from gateway.agent.auth import FlightAuth
from gateway.agent.middleware import FlightMiddleware
from gateway.agent.onward import ContextError, Onward
from gateway.agent.registrar import Registrar, RegistrationRefusedError

__all__ = [
    "Arrival",
    "ContextError",
    "FlightAuth",
    "FlightMiddleware",
    "Held",
    "NoTimeLeftError",
    "Onward",
    "Registrar",
    "RegistrationRefusedError",
]
