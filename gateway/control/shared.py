"""What replicas may share: in this process without a Redis, in Redis with one."""

from __future__ import annotations

from typing import NamedTuple

from gateway.admission import ReplayGuard, ReplayMemory
from gateway.budgets import Accounts, MemoryAccounts
from gateway.contexts import Contexts, KeyFileError
from gateway.contexts.opening import opened
from gateway.control.config import GatewaySpec
from gateway.documents import DocumentError, Problem
from gateway.leases import LeaseMemory, LeaseTable
from gateway.ledger import Ledger, LedgerMemory
from gateway.membership.registration_store import RegistrationMemory, RegistrationStore
from gateway.revocations import MemoryOrders, Orders
from gateway.revocations.keep import read_kept


class Shared(NamedTuple):
    """The stores."""

    replay: ReplayGuard
    """Which signatures were accepted."""
    leases: LeaseTable
    """Where conversations are."""
    registrations: RegistrationStore
    """Which agents have registered themselves."""
    ledger: Ledger
    """What was done that is done once."""
    budgets: Accounts
    """What budgets have left."""
    contexts: Contexts | None
    """What agents keep of conversations, where they may."""
    revocations: Orders
    """What operators have revoked."""

    async def close(self) -> None:
        """Ask no more."""
        await self.replay.close()
        await self.leases.close()
        await self.registrations.close()
        await self.ledger.close()
        await self.budgets.close()
        if self.contexts is not None:
            await self.contexts.close()
        await self.revocations.close()


def shared(config: GatewaySpec) -> Shared:
    """The stores that `config` asks for.

    Raises:
        DocumentError: the client library for Redis is not installed, a key of contexts cannot be used any more, or what
            was kept of revocations cannot be read.

    """
    keep = config.revocations.keep
    try:
        kept = read_kept(keep)
    except (OSError, ValueError) as error:
        raise DocumentError([Problem(str(keep), 1, 1, f"revocations that were kept cannot be read: {error}")]) from None
    try:
        contexts = _contexts(config)
    except KeyFileError as error:
        raise DocumentError([Problem("gateway.yaml", 1, 1, f"spec.contexts.keys: {error}")]) from None
    except ImportError:
        raise DocumentError([Problem("gateway.yaml", 1, 1, _NO_REDIS)]) from None
    if config.redis is None:
        return Shared(
            ReplayMemory(),
            LeaseMemory(config.leases),
            RegistrationMemory(),
            LedgerMemory(config.ledger),
            MemoryAccounts(config.budgets.capacity),
            contexts,
            MemoryOrders(kept),
        )
    try:
        from gateway.admission.redis_replay import RedisReplay
        from gateway.budgets.redis_accounts import RedisAccounts
        from gateway.leases.redis_leases import RedisLeases
        from gateway.ledger.redis_ledger import RedisLedger
        from gateway.membership.redis_registration import RedisRegistrations
        from gateway.revocations.redis_orders import RedisOrders
    except ImportError:
        raise DocumentError([Problem("gateway.yaml", 1, 1, _NO_REDIS)]) from None
    url = config.redis.url
    return Shared(
        RedisReplay(url),
        RedisLeases(url, config.leases),
        RedisRegistrations(url),
        RedisLedger(url, config.ledger),
        RedisAccounts(url, config.budgets),
        contexts,
        RedisOrders(url, kept),
    )


_NO_REDIS = "spec.redis needs the extra redis: pip install 'phoenixflight-gateway[redis]'"


def _contexts(config: GatewaySpec) -> Contexts | None:
    if config.contexts is None:
        return None
    return opened(config.contexts, config.redis.url if config.redis is not None else "")
