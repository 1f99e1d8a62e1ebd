"""Gates and experts: who uses whom (fig. 5), how that came about, and which experts say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from mmoe_ranker.plots.curves import SIZE, draw_curve, figure_and_axes, finish


def gate_utilisation(gates: ArrayLike, objectives: Sequence[str]) -> Figure:
    """Mean utilisation of each expert by each objective (fig. 5).

    Args:
      gates: [B, T, E] gates of B impressions, or their mean [T, E].
      objectives: the T names.
    """
    mean = np.asarray(gates, dtype=float)
    mean = mean.mean(axis=0) if mean.ndim == 3 else mean
    figure, axes = figure_and_axes()
    image = axes.imshow(mean, cmap="Blues", vmin=0.0, aspect="auto")
    axes.set(xlabel="expert", ylabel="objective", title="Mean share of each expert in each objective's gate")
    axes.set_xticks(range(mean.shape[1]), [str(expert + 1) for expert in range(mean.shape[1])])
    axes.set_yticks(range(len(objectives)), objectives)
    _write_cells(axes, mean)
    figure.colorbar(image, ax=axes, label="mean gate")
    return figure


def expert_similarity(similarity: ArrayLike) -> Figure:
    """How alike experts answer: linear CKA of each pair; dark pairs are one expert at the price of two.

    Args:
      similarity: [F, F], as `metrics.expert_similarity` returns it; NaN or None where an expert answers all alike.
    """
    values = np.asarray(similarity, dtype=float)
    figure, axes = plt.subplots(figsize=(5.0, 4.2), layout="constrained")
    image = axes.imshow(values, cmap="Blues", vmin=0.0, vmax=1.0)
    names = [str(expert + 1) for expert in range(len(values))]
    axes.set(xlabel="expert", ylabel="expert", title="Similarity of the experts' answers (1: the same)")
    axes.set_xticks(range(len(values)), names)
    axes.set_yticks(range(len(values)), names)
    _write_cells(axes, values)
    figure.colorbar(image, ax=axes, label="linear CKA")
    return figure


def expert_history(experts: Mapping[str, Any]) -> Figure:
    """Evenness of each objective's gate, and similarity of the experts, over the steps of a training.

    Args:
      experts: section `experts` of `training.json`.
    """
    figure, (gates, answers) = plt.subplots(2, 1, figsize=(SIZE[0], 5.4), sharex=True, layout="constrained")
    history = experts["history"]
    steps = [row["step"] for row in history]
    for place, objective in enumerate(experts["objectives"]):
        draw_curve(gates, place, objective, steps, [row["entropy_share"][place] for row in history])
    gates.set(ylabel="entropy (share of an even gate's)", title="Gates over the training: 1 is even, 0 is one expert")
    gates.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    similar = [np.nan if row["similarity"] is None else row["similarity"] for row in history]
    draw_curve(answers, len(experts["objectives"]), "", steps, similar)
    answers.set(
        xlabel="step", ylabel="linear CKA, mean of pairs", title="Experts: 1 is all the same, 0 is nothing in common"
    )
    answers.set_ylim(0, 1)
    return finish(figure)


def _write_cells(axes: Any, values: np.ndarray) -> None:
    most = np.nanmax(values, initial=0.0)
    for row, column in np.ndindex(values.shape):
        shade = "white" if values[row, column] > 0.6 * most else "black"
        text = "silent" if np.isnan(values[row, column]) else f"{values[row, column]:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=8 if text != "silent" else 6)
