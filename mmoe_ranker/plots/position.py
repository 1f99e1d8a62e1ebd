"""Position bias: rates (fig. 6), what shallow towers learned (fig. 7), examination, calibration.

Rows are those of `position_bias.position_bias_report` and `position_bias.learned_curves`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike

from mmoe_ranker.plots.curves import COLORS, draw_curve, figure_and_axes, finish
from mmoe_ranker.position_bias import learned_curves

Rows: TypeAlias = Sequence[Mapping[str, Any]]

_EXAMINATIONS = {
    "interventions": "clicks, same item at several positions",
    "by_item": "clicks, one relevance an item",
    "em_by_prediction": "clicks, EM with the model's prediction",
    "predicted_seen": "the model, position seen",
    "predicted_missing": "the model, position missing",
}


def rate_by_position(
    rates: Mapping[str, Mapping[int, float | Sequence[float]]], label: str = "CTR", group: str = "device"
) -> Figure:
    """Rate of an event at each position, a line a device (fig. 6).

    Args:
      rates: by device, then by position: the rate, or rate, low and high, which are drawn as a band.
      label: what the rate is of.
      group: what the lines are, for the legend.
    """
    figure, axes = figure_and_axes()
    banded = False
    for place, (name, by_position) in enumerate(sorted(rates.items())):
        positions = sorted(by_position)
        columns = np.array([np.atleast_1d(by_position[position]) for position in positions], dtype=float).T
        banded |= len(columns) == 3
        draw_curve(axes, place, name, positions, columns[0], (columns[1], columns[2]) if len(columns) == 3 else None)
    title = f"{label} at each position" + (" (band: 95 % interval)" if banded else "")
    axes.set(xlabel="position (1 is the first)", ylabel=f"{label} (share of impressions)", title=title, ylim=(0, None))
    if len(rates) > 1:
        axes.legend(title=group, frameon=False)
    return finish(figure)


def learned_bias(rows: Rows, objective: str = "click", truth: Mapping[str, ArrayLike] | None = None) -> Figure:
    """What one shallow tower learned at each position, a line a device (fig. 7).

    Args:
      rows: as `evaluation.learned_bias` returns them, with `position`.
      objective: whose logit to draw.
      truth: by device, the true examination [P] from position 1 on, where it is known.
    """
    return learned_bias_over_seeds(learned_curves([rows], objective), objective, truth)


def learned_bias_over_seeds(
    curves: Rows, objective: str = "click", truth: Mapping[str, ArrayLike] | None = None, group: str = "device"
) -> Figure:
    """What shallow towers learned at each position: mean of the trainings, and their least and greatest as a band.

    Args:
      curves: as `position_bias.learned_curves` returns them.
      objective: whose they are.
      truth: by group, the true examination [P] from position 1 on; drawn dotted, relative to the first position.
      group: what the lines are, for the legend.
    """
    figure, axes = figure_and_axes()
    groups = sorted({row["group"] for row in curves})
    for place, name in enumerate(groups):
        rows = [row for row in curves if row["group"] == name]
        positions = [row["position"] for row in rows]
        runs = len(rows[0]["runs"])
        band = ([row["low"] for row in rows], [row["high"] for row in rows]) if runs > 1 else None
        draw_curve(axes, place, name or "all", positions, [row["odds"] for row in rows], band)
        if truth is not None and name in truth:
            examined = np.asarray(truth[name], dtype=float)
            axes.plot(
                range(1, len(examined) + 1), examined / examined[0], color=COLORS[place % len(COLORS)], linestyle=":"
            )
    runs = len(curves[0]["runs"])
    how = f", {runs} trainings (band: least and greatest)" if runs > 1 else ""
    axes.set(
        xlabel="position (1 is the first)",
        ylabel=f"odds of {objective}, relative to position 1",
        title=f"Learned bias{how}" + ("\ndotted: the true examination" if truth else ""),
        ylim=(0, None),
    )
    if len(groups) > 1:
        axes.legend(title=group, frameon=False)
    return finish(figure)


def examination(examined: Mapping[str, Any], learned: Rows | None = None, truth: ArrayLike | None = None) -> Figure:
    """Every estimate of how likely a position is examined, and what the model makes of a position, in one plot.

    Args:
      examined: section `examination` of the report.
      learned: section `learned`, with one group; None leaves it out.
      truth: the true examination [P] from position 1 on, where it is known.
    """
    figure, axes = figure_and_axes()
    for place, (key, label) in enumerate(_EXAMINATIONS.items()):
        rows = examined[key]
        if key == "interventions":
            rows = [row for row in rows["rows"] if row["group"] is None]
        rows = [row for row in rows or () if row["value"] is not None]
        if not rows:
            continue
        banded = all(row.get("low") is not None and row.get("high") is not None for row in rows)
        band = ([row["low"] for row in rows], [row["high"] for row in rows]) if banded else None
        draw_curve(axes, place, label, [row["position"] for row in rows], [row["value"] for row in rows], band)
    if learned:
        place = len(_EXAMINATIONS)
        draw_curve(axes, place, "learned bias", [row["position"] for row in learned], [row["odds"] for row in learned])
    if truth is not None:
        examined_truly = np.asarray(truth, dtype=float)
        axes.plot(
            range(1, len(examined_truly) + 1), examined_truly / examined_truly[0], color="black", ls=":", label="truth"
        )
    axes.set(
        xlabel="position (1 is the first)",
        ylabel="relative to position 1",
        title="What a position does, by several references (bands: 95 %)",
        ylim=(0, min(2.0, 1.15 * max(np.asarray(line.get_ydata(), dtype=float).max() for line in axes.lines))),
    )
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return finish(figure)


def calibration_by_position(calibration: Mapping[str, Rows | None], objective: str = "click") -> Figure:
    """Prediction over observed rate at each position, with the position missing and seen.

    Args:
      calibration: section `calibration` of the report.
      objective: whose it is.
    """
    figure, axes = figure_and_axes()
    axes.axhline(1.0, color="0.6", linewidth=1)
    for place, (key, rows) in enumerate(calibration.items()):
        known = [row for row in rows or () if row["ratio"] is not None and row["high"] is not None]
        if known:
            band = ([row["low"] for row in known], [row["high"] for row in known])
            positions = [row["position"] for row in known]
            draw_curve(axes, place, f"position {key}", positions, [row["ratio"] for row in known], band)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axes.set(
        xlabel="position (1 is the first)",
        ylabel=f"predicted over observed rate of {objective}",
        title="Calibration at each position: 1 is right, above too much (band: 95 %)",
    )
    axes.legend(frameon=False)
    return finish(figure)
