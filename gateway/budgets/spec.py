"""What budgets may cost, and what becomes of them while Redis is away."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from gateway.documents import ErrorAt, Spec


class BudgetSpec(Spec):
    """Budgets; every field has a default."""

    without_redis: Annotated[
        dict[str, Annotated[int, Field(ge=1, le=999_999_999_999_999, strict=True)]], Field(max_length=16)
    ] = {}
    """By unit: what each process may have reserved or spent that Redis does not know of yet, because it was away; a
    unit that is missing waits for Redis.  Without any, what needs an account is refused meanwhile."""
    capacity: int = Field(default=1_000_000, ge=1)
    """Accounts in this process; beyond it 503 overloaded."""

    @field_validator("without_redis")
    @classmethod
    def _hops_are_not_spent(cls, amounts: dict[str, int]) -> dict[str, int]:
        if "hops" in amounts:
            raise ErrorAt("hops are counted by credentials, not kept in accounts", "hops")
        return amounts
