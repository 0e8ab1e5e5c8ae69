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
_HEADLINES = ("CPU per handoff, HTTP/2 in", "CPU per handoff, HTTP/1.1 in")
_RATE = 500
"""Proxies whose latency was taken at another rate are left out of that picture."""


def draw(path: Path, kinds: list[Kind], table: list[Row], machine: dict[str, object]) -> None:
    """Write the picture as PNG."""
    figure, (cpu, ratio, latency) = plt.subplots(1, 3, figsize=(18, 6), width_ratios=(2, 3, 2), layout="constrained")
    _bars(cpu, kinds, [row for row in table if row.label in _HEADLINES], "{:,.0f}")
    cpu.set_yscale("log")
    cpu.set_title("CPU per handoff [µs]", fontsize=10)
    _ratios(ratio, [row for row in table if row.to_envoy is not None and "CPU" in row.label])
    ratio.set_title("CPU, ours / Envoy; dark where the target is met", fontsize=10)
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
    for at, row in enumerate(reversed(table)):
        met = all(target.met for target in row.targets)
        bars = axes.barh([at], [row.to_envoy or 0.0], 0.6, color=_COLOURS["ours"], alpha=1.0 if met else 0.5)
        axes.bar_label(
            bars, labels=[", ".join([f"{row.to_envoy:.2f}", *(each.text for each in row.targets)])], fontsize=8
        )
    axes.axvline(1.0, color="#0f172a", linestyle="dashed", linewidth=1)
    axes.set_yticks(range(len(table)), [row.label for row in reversed(table)], fontsize=8)
    axes.margins(x=0.35)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(axes: Axes, table: list[Row]) -> None:
    axes.set_xticks(range(len(table)), [row.label.partition(", ")[2] for row in table])
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
