"""The picture of a simulated ring.  Needs the extra `plot`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from gateway.routing.simulate import Run

_ALONE, _BOUNDED, _IDEAL = "#a8a29e", "#c2410c", "#0f172a"


def draw(path: Path, run: Run) -> None:
    """Write the picture, in the format that the name ends in.

    Raises:
        OSError: it cannot be written.

    """
    with mpl.rc_context({"svg.hashsalt": "ring", "svg.fonttype": "none", "font.size": 9}):
        figure, (load, moved) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        _loads(load, run)
        _moves(moved, run)
        figure.suptitle(f"{run.agents:,} agents, {run.points:,} points, {run.packets:,} packets under way")
        figure.savefig(path, dpi=100, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _loads(axes: Axes, run: Run) -> None:
    for label, occupancy, colour in (
        ("ring alone", run.alone, _ALONE),
        ("bounded load", run.bounded, _BOUNDED),
    ):
        counts = np.rint(occupancy.shares * run.packets).astype(int)
        axes.stairs(
            np.bincount(counts), np.arange(counts.max() + 2) - 0.5, fill=True, alpha=0.7, color=colour, label=label
        )
    axes.axvline(run.packets / run.agents, color=_IDEAL, linestyle="dashed", linewidth=1)
    axes.set_title("packets under way at an agent", fontsize=10)
    axes.set_ylabel("agents")
    _finish(axes)


def _moves(axes: Axes, run: Run) -> None:
    for joins, label, marker in ((True, "a join", "^"), (False, "a leave", "v")):
        steps = [(at, step.moved) for at, step in enumerate(run.steps, 1) if step.joins is joins]
        axes.plot(*zip(*steps, strict=True) if steps else ([], []), marker, color=_BOUNDED, label=label, markersize=4)
    axes.plot(
        range(1, len(run.steps) + 1),
        [step.ideal for step in run.steps],
        color=_IDEAL,
        linestyle="dashed",
        linewidth=1,
        label="the fair share of who joins or leaves",
    )
    axes.set_ylim(bottom=0)
    axes.set_title("share of keys that a step moves", fontsize=10)
    axes.set_xlabel("step")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
