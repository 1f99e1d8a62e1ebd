"""Figures of a search for weights of the combined score; each function returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

_PANEL = 2.9
_TRIED, _FRONT = "0.78", "tab:blue"
_COLORS = ("black", "tab:red", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:pink", "tab:olive")
_MARKERS = ("*", "D", "o", "s", "^", "v", "P", "X")


def weight_front(
    ndcg: NDArray[np.float64],
    front: NDArray[np.bool_],
    names: Sequence[str],
    lower_is_better: Sequence[str],
    points: Mapping[str, Sequence[float]],
    metric: str,
) -> Figure:
    """NDCG of every two objectives under each of the weights tried, a panel a pair; better is up and to the right.

    Args:
        ndcg: [W, K], of the weights tried.
        front: [W], whether no other weights beat these.
        names: The K objectives, at least two.
        lower_is_better: Those of them whose axes are turned round.
        points: By name, the K values of the weights to mark, the current ones first.
        metric: What the values are of, such as `NDCG@10`.
    """
    size = len(names) - 1
    figure, panels = plt.subplots(
        size, size, figsize=(_PANEL * size + 1.9, _PANEL * size + 0.6), layout="constrained", squeeze=False
    )
    for row, column in np.ndindex(size, size):
        axes, pair = panels[row, column], [column, row + 1]
        if column > row:
            axes.set_axis_off()
            continue
        axes.scatter(*ndcg[~front][:, pair].T, s=6, color=_TRIED, label="tried", rasterized=True)
        axes.scatter(*ndcg[front][:, pair].T, s=8, color=_FRONT, alpha=0.6, label="beaten by none", rasterized=True)
        for index, (name, values) in enumerate(points.items()):
            style = index % len(_COLORS)
            look = {"s": 150 if index == 0 else 45, "marker": _MARKERS[style], "color": _COLORS[style]}
            axes.scatter(*np.array(values)[pair], edgecolor="white", label=name, **look)
        _label(axes, [names[index] for index in pair], lower_is_better, row == size - 1, column == 0)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside right upper")
    figure.suptitle(f"{metric} of the combined score under {len(ndcg):,} weights")
    return figure


def _label(axes: Axes, pair: Sequence[str], lower_is_better: Sequence[str], bottom: bool, left: bool) -> None:
    x, y = (f"{name} (less is better)" if name in lower_is_better else name for name in pair)
    axes.set(xlabel=x if bottom else "", ylabel=y if left else "")
    if pair[0] in lower_is_better:
        axes.invert_xaxis()
    if pair[1] in lower_is_better:
        axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
