"""Metrics of budgets, read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.budgets import Accounts

MAX_UNITS = 20
OTHER = "other"


class BudgetCounts:
    """What became of budgets, by unit: the first units have numbers of their own, all others share one."""

    __slots__ = ("refunded", "refused", "reserved", "spent")

    def __init__(self) -> None:
        self.reserved: dict[str, int] = {}
        self.spent: dict[str, int] = {}
        self.refunded: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        """Packets, by reason; of a closed set."""

    def reserve(self, unit: str, amount: int) -> None:
        """So much was reserved."""
        _count(self.reserved, unit, amount)

    def settle(self, unit: str, spent: int, reserved: int) -> None:
        """Of `reserved`, so much was spent; more than it perhaps."""
        _count(self.spent, unit, spent)
        _count(self.refunded, unit, max(0, reserved - spent))

    def refuse(self, reason: str) -> None:
        """A packet was refused, or its answer ended."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


def _count(counts: dict[str, int], unit: str, amount: int) -> None:
    if unit not in counts and len(counts) >= MAX_UNITS:
        unit = OTHER
    counts[unit] = counts.get(unit, 0) + amount


class BudgetMetrics(Collector):
    """What docs/metrics.md tells of budgets."""

    def __init__(self, counts: BudgetCounts, accounts: Accounts) -> None:
        self._counts = counts
        self._accounts = accounts

    def collect(self) -> Iterable[Metric]:
        """For prometheus-client: the families, made from the numbers as they stand."""
        counts = self._counts
        for name, text, found in (
            ("reserved", "Amounts reserved before an agent was asked, by unit.", counts.reserved),
            ("spent", "Amounts spent, as read from answers, by unit.", counts.spent),
            ("refunded", "Amounts reserved and not spent, by unit.", counts.refunded),
        ):
            yield _counter(f"phoenixflight_budget_{name}", text, "unit", found)
        text = "Packets refused for want of a budget, and answers ended, by reason."
        yield _counter("phoenixflight_budget_refusals", text, "reason", counts.refused)
        errors = "Questions about budgets that Redis did not answer."
        yield CounterMetricFamily("phoenixflight_budget_store_errors", errors, value=self._accounts.errors)
        yield GaugeMetricFamily(
            "phoenixflight_budget_accounts",
            "Accounts that this process keeps in mind; with Redis, those that it is still to be told of.",
            value=self._accounts.entries,
        )


def _counter(name: str, text: str, label: str, found: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, amount in sorted(found.items()):
        family.add_metric([value], amount)
    return family
