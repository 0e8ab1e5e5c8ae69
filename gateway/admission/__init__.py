"""What a decision cannot know by itself, because it depends on what came before: replays and rates.

Enters: keys, subjects and the time.  Leaves: an `Admission`, or the seconds to wait.
Knows nothing of sockets, packets, policies or snapshots; only `redis_replay` does I/O.
"""

from gateway.admission.rates import RateLimiter
from gateway.admission.replay import Admission, ReplayGuard, ReplayMemory

__all__ = ["Admission", "RateLimiter", "ReplayGuard", "ReplayMemory"]
