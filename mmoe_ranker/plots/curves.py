"""How curves look in every figure: colours, markers, bands, axes."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

# Okabe & Ito (https://jfly.uni-koeln.de/color/), without the yellow that paper swallows.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SIZE = (6.4, 4.0)


def figure_and_axes() -> tuple[Figure, Axes]:
    """A new figure with one plot in it."""
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    return figure, axes


def draw_curve(
    axes: Axes,
    place: int,
    label: str,
    x: Sequence[float],
    y: ArrayLike,
    band: tuple[ArrayLike, ArrayLike] | None = None,
) -> None:
    """Draws a curve in the colour and with the marker of its place, and its interval as a band.

    Args:
      axes: to draw on.
      place: of the curve among those of the plot.
      label: for the legend.
      x: [P].
      y: [P].
      band: its ends, [P] each, or None.
    """
    color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
    axes.plot(x, y, color=color, marker=marker, markersize=4, label=label)
    if band is not None:
        axes.fill_between(x, *band, color=color, alpha=0.18, linewidth=0)


def finish(figure: Figure) -> Figure:
    """Takes away what says nothing; positions, passes and steps are whole numbers."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
