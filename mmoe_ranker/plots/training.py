"""Metrics over the passes of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mmoe_ranker.plots.curves import COLORS, figure_and_axes, finish


def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """The AUC of each objective over the passes, training dashed and validation solid where there is one.

    Args:
      history: as `fit(...).history`.
    """
    figure, axes = figure_and_axes()
    names = [name for name in history if name.endswith("_auc") and not name.startswith("val_")]
    for place, name in enumerate(names):
        color = COLORS[place % len(COLORS)]
        passes = range(1, len(history[name]) + 1)
        validated = f"val_{name}" in history
        label = name.removesuffix("_auc")
        axes.plot(passes, history[name], color=color, linestyle="--" if validated else "-", label=label)
        if validated:
            axes.plot(passes, history[f"val_{name}"], color=color)
    axes.set(xlabel="pass", ylabel="auc", title="AUC over the passes (dashed: training)")
    axes.legend(frameon=False)
    return finish(figure)
