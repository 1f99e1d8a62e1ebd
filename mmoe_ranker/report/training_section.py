"""How the training went: its losses and AUC over the steps, and what each pass came to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.report.document import Block, Section, Table, number
from mmoe_ranker.report.figures import PageFigure, page_figure

_METRICS = {"loss": "loss", "auc": "AUC", "standardised_rmse": "RMSE (std.)"}
Curves = Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
"""By name, steps [S] and values [S]."""


def training_section(result: Mapping[str, Any], curves: Curves, config: Config) -> Section:
    """The section; without curves, a sentence on that.

    Args:
      result: of the training, from `training.json`.
      curves: as `training_log.training_metrics` reads them.
      config: the config that trained.
    """
    names = config.objective_names
    figures: list[PageFigure] = []
    losses = {name: curves[f"{name}_loss"] for name in names if f"{name}_loss" in curves}
    aucs = {name: curves[f"{name}_auc"] for name in names if f"{name}_auc" in curves}
    if losses:
        figures.append(
            page_figure(
                lambda: curves_over_steps(
                    {name: (steps, values / values[0]) for name, (steps, values) in losses.items() if values[0] > 0},
                    "loss over its first value",
                ),
                "losses",
                "Loss of each objective over its first value",
                "Each point is the mean since the pass began, so that curves are smooth and start anew with a pass; "
                "a curve that rises within a pass is worth a look.",
            )
        )
    if aucs:
        figures.append(
            page_figure(
                lambda: curves_over_steps(aucs, "AUC", level=0.5),
                "training-auc",
                "AUC on the training impressions",
                "Each is predicted before it is learned from, in the first pass; in later passes they were seen "
                "before, and a jump there is memory rather than skill.",
            )
        )
    passes = result.get("passes") or [{"metrics": result.get("metrics", {})}]
    missing = (
        [] if figures else ["There are no training curves: the workdir holds no logs of TensorBoard (logs/train)."]
    )
    tables = [_passes(passes, names, int(result.get("kept_pass", len(passes))))]
    return Section(
        "training",
        "Training",
        paragraphs=[_sentence(result, passes)],
        blocks=[Block(figures=figures, tables=tables)],
        missing=missing,
    )


def read_curves(workdir: Path) -> Curves:
    """The curves of a workdir; none where it keeps no logs, or tensorboard is not installed to read them."""
    try:
        from mmoe_ranker.report.training_log import training_metrics
    except ImportError:
        return {}
    return training_metrics(workdir / "logs")


def curves_over_steps(curves: Curves, label: str, level: float | None = None) -> Figure:
    """A line an objective over the steps of the training.

    Args:
      curves: by objective.
      label: of the values.
      level: to draw a thin line at, such as what a coin would come to.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name)
    if level is not None:
        axes.axhline(level, color=plt.rcParams["grid.color"], linewidth=1.0, zorder=0)
    axes.set(xlabel="step", ylabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _sentence(result: Mapping[str, Any], passes: Sequence[object]) -> str:
    steps, speed = result.get("steps"), result.get("examples_per_second")
    sentence = f"{number(steps)} steps in {len(passes)} {'pass' if len(passes) == 1 else 'passes'}"
    sentence += f", {number(float(speed), 0)} examples a second." if speed else "."
    kept = result.get("kept_pass")
    if kept and kept != len(passes):
        sentence += f" The weights are those of pass {kept}, whose validation loss was lowest."
    return sentence


def _passes(passes: Sequence[Mapping[str, Any]], names: Sequence[str], kept: int) -> Table:
    shown = [
        (name, metric)
        for name in names
        for metric in _METRICS
        if any(f"{name}_{metric}" in record["metrics"] for record in passes)
    ]
    validated = ["validation loss"] if any("validation_loss" in record for record in passes) else []
    rows = [
        [
            f"{place}{' (kept)' if len(passes) > 1 and place == kept else ''}",
            *(number(record.get("validation_loss")) for _ in validated),
            *(number(record["metrics"].get(f"{name}_{metric}")) for name, metric in shown),
        ]
        for place, record in enumerate(passes, start=1)
    ]
    groups = [("", 1 + len(validated))]
    groups += [(name, len(list(its))) for name, its in itertools.groupby(shown, key=lambda one: one[0])]
    columns = ["pass", *validated, *(_METRICS[metric] for _, metric in shown)]
    return Table("Means over each pass, on the training impressions", columns, rows, groups=groups)
