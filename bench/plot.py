"""The picture of a run: CPU per handoff, what that is next to Envoy's, and the latency added."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.proxy import Kind
from bench.table import Row

_COLOURS = {"ours": "#c2410c", "envoy": "#475569", "naive": "#a8a29e"}
_RATE = 500
"""Proxies whose latency was taken at another rate are left out of that picture."""


def draw(path: Path, kinds: list[Kind], table: list[Row], machine: dict[str, object]) -> None:
    """Write the picture as PNG."""
    figure, (cpu, ratio, latency) = plt.subplots(1, 3, figsize=(14, 5), layout="constrained")
    cpu_rows = [row for row in table if row.label.startswith("CPU per handoff")]
    _bars(cpu, kinds, cpu_rows, "{:,.0f}")
    cpu.set_yscale("log")
    cpu.set_title("CPU per handoff [µs]", fontsize=10)
    _ratios(ratio, cpu_rows)
    ratio.set_title("CPU per handoff, ours / Envoy", fontsize=10)
    latency_rows = [row for row in table if row.label.startswith("latency added")]
    _bars(latency, [kind for kind in kinds if kind.rate == _RATE], latency_rows, "{:.2f}")
    latency.set_title(f"latency added at {_RATE}/s [ms]", fontsize=10)
    figure.legend(*cpu.get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds), frameon=False)
    figure.suptitle(f"{machine['cpu']}, one core a proxy; {str(machine['date'])[:10]}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _bars(axes: Axes, kinds: list[Kind], table: list[Row], form: str) -> None:
    width = 0.8 / max(1, len(kinds))
    for index, kind in enumerate(kinds):
        cells = [row.cells[kind.name] for row in table]
        bars = axes.bar(
            [at + (index - (len(kinds) - 1) / 2) * width for at in range(len(cells))],
            [cell.median for cell in cells],
            width,
            yerr=([cell.median - cell.low for cell in cells], [cell.high - cell.median for cell in cells]),
            color=_COLOURS[kind.name],
            ecolor="#0f172a",
            label=kind.title,
        )
        axes.bar_label(bars, fmt=form, fontsize=8, padding=2)
    _finish(axes, table)


def _ratios(axes: Axes, table: list[Row]) -> None:
    shown = [(at, row.to_envoy) for at, row in enumerate(table) if row.to_envoy is not None]
    bars = axes.bar([at for at, _ in shown], [value for _, value in shown], 0.5, color=_COLOURS["ours"])
    axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    for at, limit in enumerate((2.5, 1.0)):
        axes.hlines(limit, at - 0.35, at + 0.35, colors="#0f172a", linestyles="dashed", linewidth=1)
        axes.annotate("target", (at + 0.35, limit), fontsize=8, va="bottom", ha="right")
    axes.set_ylim(0, 3)
    _finish(axes, table)


def _finish(axes: Axes, table: list[Row]) -> None:
    axes.set_xticks(range(len(table)), [row.label.partition(", ")[2] for row in table])
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
