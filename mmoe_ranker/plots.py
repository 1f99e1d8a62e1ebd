"""The paper's figures from one's own logs and models; each function returns a matplotlib figure.

They take reports and arrays, never a model, so that a figure can be drawn again from a saved file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

_SIZE = (6.4, 4.0)


def rate_by_position(rates: Mapping[str, Mapping[int, float]], label: str = "CTR") -> Figure:
    """Rate of an event at each position, a line a device (fig. 6).

    Args:
      rates: by device, then by position.
      label: what the rate is of.
    """
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    for device, by_position in sorted(rates.items()):
        positions = sorted(by_position)
        axes.plot(positions, [by_position[position] for position in positions], marker="o", markersize=3, label=device)
    axes.set(xlabel="position", ylabel=label, title=f"{label} by position", ylim=(0, None))
    axes.legend(title="device", frameon=False)
    return _clean(figure)


def learned_bias(
    rows: Sequence[Mapping[str, Any]],
    objective: str = "click",
    truth: Mapping[str, ArrayLike] | None = None,
) -> Figure:
    """What the shallow tower learned at each position, a line a device (fig. 7).

    Args:
      rows: as `evaluation.learned_bias` returns them, with `position` and `device`.
      objective: whose logit to draw.
      truth: by device, the true examination from position 1 on, where it is known; its logarithm is drawn, shifted to
        the learned curve's mean, since a shallow tower is free up to a constant.
    """
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    devices = sorted({row["device"] for row in rows if row["device"] is not None})
    for device in devices:
        curve = {
            row["position"]: row[objective] for row in rows if row["device"] == device and (row["position"] or 0) > 0
        }
        positions = np.array(sorted(curve))
        values = np.array([curve[position] for position in positions])
        (line,) = axes.plot(positions, values, marker="o", markersize=3, label=device)
        if truth is not None and device in truth:
            logarithm = np.log(np.asarray(truth[device], dtype=float))
            shift = values[: len(logarithm)].mean() - logarithm.mean()
            axes.plot(positions[: len(logarithm)], logarithm + shift, color=line.get_color(), linestyle=":")
    title = f"Learned bias of {objective}" + (" (dotted: log of the true examination, shifted)" if truth else "")
    axes.set(xlabel="position", ylabel="bias logit", title=title)
    axes.legend(title="device", frameon=False)
    return _clean(figure)


def gate_utilisation(gates: ArrayLike, objectives: Sequence[str]) -> Figure:
    """Mean utilisation of each expert by each objective (fig. 5).

    Args:
      gates: [B, T, E] gates of B impressions, or their mean [T, E].
      objectives: the T names.
    """
    mean = np.asarray(gates, dtype=float)
    mean = mean.mean(axis=0) if mean.ndim == 3 else mean
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    image = axes.imshow(mean, cmap="Blues", vmin=0.0, aspect="auto")
    axes.set(xlabel="expert", title="Expert utilisation per objective")
    axes.set_xticks(range(mean.shape[1]), [str(expert + 1) for expert in range(mean.shape[1])])
    axes.set_yticks(range(len(objectives)), objectives)
    for row, column in np.ndindex(mean.shape):
        shade = "white" if mean[row, column] > 0.6 * mean.max() else "black"
        axes.text(column, row, f"{mean[row, column]:.2f}", ha="center", va="center", color=shade, fontsize=8)
    figure.colorbar(image, ax=axes, label="mean gate")
    return figure


def training_curves(history: Mapping[str, Sequence[float]], metric: str = "auc") -> Figure:
    """A metric of each objective over the passes, training dashed and validation solid where there is one.

    Args:
      history: as `fit(...).history`.
      metric: the ending of the names to draw.
    """
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    names = [name for name in history if name.endswith(f"_{metric}") and not name.startswith("val_")]
    for name in names:
        passes = range(1, len(history[name]) + 1)
        validated = f"val_{name}" in history
        label = name.removesuffix(f"_{metric}")
        (line,) = axes.plot(passes, history[name], linestyle="--" if validated else "-", label=label)
        if validated:
            axes.plot(passes, history[f"val_{name}"], color=line.get_color())
    axes.set(xlabel="pass", ylabel=metric, title=f"{metric.upper()} over the passes (dashed: training)")
    axes.legend(frameon=False)
    return _clean(figure)


def _clean(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        # Positions and passes are whole.
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
