"""Calibration: whether what is predicted at 10 % happens 10 % of the time, prediction by prediction."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmoe_ranker.position_bias.rates import wilson_interval
from mmoe_ranker.report.document import Block, Section, number
from mmoe_ranker.report.figures import page_figure

_LARGEST = 36.0
_EXPECTED = 10.0


def calibration_section(report: Mapping[str, Any]) -> Section:
    """The section, a reliability curve an objective.

    Args:
      report: as `evaluation_metrics.evaluate` gives it.
    """
    curves = {name: curve for name, curve in (report.get("reliability") or {}).items() if curve["predicted"]}
    if not curves:
        sentence = "There are no reliability curves: no objective that happens or not has labels on this split."
        return Section("calibration", "Calibration", missing=[sentence])
    figures = [
        page_figure(
            functools.partial(reliability_figure, *joined_bins(**curve)),
            f"reliability-{place}",
            f"Reliability of {name}",
            _reading(report["objectives"][name].get("calibration")),
        )
        for place, (name, curve) in enumerate(curves.items())
    ]
    sentence = (
        "Impressions in bins of rising prediction, each of ten expected positives or more: what was predicted on "
        "average, and how often it happened. On the dashed line the two are the same; below it, too much is predicted. "
        "Upright lines are 95 % intervals."
    )
    return Section("calibration", "Calibration", [sentence], blocks=[Block(figures=figures)])


def joined_bins(
    predicted: Sequence[float], observed: Sequence[float], weights: Sequence[float]
) -> tuple[list[float], list[float], list[float]]:
    """Joins neighbouring bins until each expects enough positives for its rate to say something.

    Args:
      predicted: mean prediction of each bin, rising.
      observed: rate of each bin.
      weights: impressions of each bin.

    Returns:
      The same three of the joined bins; the last takes what is left over.
    """
    bins: list[list[float]] = []  # sums of predictions, positives and impressions
    for mean, rate, count in zip(predicted, observed, weights, strict=True):
        if not bins or bins[-1][0] >= _EXPECTED:
            bins.append([0.0, 0.0, 0.0])
        for place, value in enumerate((mean * count, rate * count, count)):
            bins[-1][place] += value
    if len(bins) > 1 and bins[-1][0] < _EXPECTED:
        last = bins.pop()
        bins[-1] = [one + other for one, other in zip(bins[-1], last, strict=True)]
    return [p / n for p, _, n in bins], [y / n for _, y, n in bins], [n for _, _, n in bins]


def reliability_figure(predicted: Sequence[float], observed: Sequence[float], weights: Sequence[float]) -> Figure:
    """Observed against predicted rate, bin by bin, with the line on which they are the same.

    Args:
      predicted: mean prediction of each bin.
      observed: rate of each bin.
      weights: of each bin, such as its impressions.
    """
    low, high = wilson_interval(np.asarray(observed), np.asarray(weights))
    figure, axes = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
    end = max(*predicted, *high, 0.0) * 1.04
    axes.plot([0, end], [0, end], color=plt.rcParams["axes.edgecolor"], linewidth=0.8, linestyle=(0, (4, 3)))
    (line,) = axes.plot(predicted, observed, linewidth=1.2)
    largest = max(weights)
    areas = [_LARGEST * weight / largest for weight in weights]
    axes.scatter(predicted, observed, s=areas, color=line.get_color(), zorder=3)
    axes.vlines(predicted, low, high, color=line.get_color(), linewidth=0.8, alpha=0.6)
    axes.set(xlabel="predicted", ylabel="observed", xlim=(0, end), ylim=(0, end))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(_percent)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _percent(rate: float, _: object) -> str:
    return f"{100 * rate:g} %"


def _reading(ratio: float | None) -> str:
    if ratio is None:
        return "There is no positive, so predictions cannot be held against a rate."
    return f"In all, {number(ratio, 2)} times as much is predicted as was observed."
