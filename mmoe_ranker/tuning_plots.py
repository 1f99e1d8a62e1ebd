"""Figures of a search, from its finished trials; each function returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_SIZE = (6.4, 4.0)
_PANEL = 3.2


def history(numbers: Sequence[int], values: Sequence[float], metric: str, maximize: bool) -> Figure:
    """A metric of each trial in turn, and the best so far.

    Args:
      numbers: of the trials, rising.
      values: their metric.
      metric: its name.
      maximize: whether more of it is better.
    """
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    best = np.maximum.accumulate(values) if maximize else np.minimum.accumulate(values)
    axes.step(numbers, best, where="post", color="tab:orange", label="best so far")
    axes.scatter(numbers, values, s=18, label="trial", zorder=3)
    axes.set(xlabel="trial", ylabel=metric, title=f"{metric} of each trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return _clean(figure)


def slices(values: Sequence[float], parameters: Mapping[str, Sequence[object]], logs: set[str], metric: str) -> Figure:
    """A metric against each parameter, a panel a parameter.

    Args:
      values: the metric of each trial.
      parameters: by key, the value of each trial; text for a choice.
      logs: the keys that are searched by factors rather than by differences.
      metric: its name.
    """
    figure, panels = plt.subplots(
        1, len(parameters), figsize=(_PANEL * len(parameters), 3.4), layout="constrained", sharey=True, squeeze=False
    )
    for axes, (key, chosen) in zip(panels[0], parameters.items(), strict=True):
        axes.scatter(chosen, values, s=18)
        if key in logs:
            axes.set_xscale("log")
        elif all(isinstance(value, int) for value in chosen):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        # The last parts of a key tell it apart, and fit under a panel.
        axes.set_xlabel(".".join(key.split(".")[-2:]))
        axes.margins(x=0.15)
    panels[0][0].set_ylabel(metric)
    figure.suptitle(f"{metric} against each parameter")
    return _clean(figure)


def importances(by_key: Mapping[str, float], metric: str) -> Figure:
    """How much each parameter matters to a metric, as shares that sum to 1.

    Args:
      by_key: the share of each parameter.
      metric: its name.
    """
    figure, axes = plt.subplots(figsize=(_SIZE[0], 1.4 + 0.4 * len(by_key)), layout="constrained")
    keys = sorted(by_key, key=lambda key: by_key[key])
    bars = axes.barh(keys, [by_key[key] for key in keys], height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlabel="share of importance (PED-ANOVA)", title=f"What {metric} depends on", xlim=(0, 1.1))
    return _clean(figure)


def pareto_front(trials: Mapping[int, tuple[float, float]], front: Sequence[int], metrics: tuple[str, str]) -> Figure:
    """Two metrics of each trial; the trials that no other beats in both are joined.

    Args:
      trials: by number, the two metrics.
      front: numbers of the trials that no other beats.
      metrics: the two names.
    """
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    others = [values for number, values in trials.items() if number not in front]
    axes.scatter([x for x, _ in others], [y for _, y in others], s=18, color="tab:gray", label="beaten by another")
    along = sorted((trials[number], number) for number in front)
    points = [values for values, _ in along]
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        marker="o",
        color="tab:orange",
        label="beaten by none (with its number)",
    )
    # A label that would lie on the one before is left out; the table has them all.
    spread, labelled = np.ptp(np.array(list(trials.values())), axis=0) * 0.06, np.array([-np.inf, -np.inf])
    for values, number in along:
        if (np.abs(np.array(values) - labelled) > spread).any():
            axes.annotate(str(number), values, textcoords="offset points", xytext=(5, 5), fontsize=8)
            labelled = np.array(values)
    axes.margins(0.12)
    axes.set(xlabel=metrics[0], ylabel=metrics[1], title=f"{metrics[0]} and {metrics[1]} of each trial")
    axes.legend(frameon=False)
    return _clean(figure)


def _clean(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure
