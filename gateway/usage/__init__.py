"""What an answer says of what was spent on it: ``flight-usage``, or the words of the model's or the agent's protocol.

Enters: an answer's fields, and its body piece by piece, after each has been passed on.  Leaves: amounts by unit.
Pure; holds no more than a bounded window of the body.  Knows nothing of budgets, policies and sockets.
"""

from gateway.usage.reader import UsageReader, written

__all__ = ["UsageReader", "written"]
