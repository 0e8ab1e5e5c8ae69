"""Budgets: what work may spend, as accounts that are kept under other accounts.

Enters: accounts, amounts by unit, what was spent, the time.  Leaves: what is reserved, or what there is too little of.
In this process or for all replicas.  Knows nothing of packets, policies, rings and sockets.
"""

from gateway.budgets.accounts import Accounts, Asked, Opened, Parent, Reserved, Short, Trouble
from gateway.budgets.memory import MemoryAccounts
from gateway.budgets.spec import BudgetSpec

__all__ = [
    "Accounts",
    "Asked",
    "BudgetSpec",
    "MemoryAccounts",
    "Opened",
    "Parent",
    "Reserved",
    "Short",
    "Trouble",
]
