"""How far two columns agree: Spearman's rank correlation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.metrics.rows import labelled_rows, numbers
from mmoe_ranker.metrics.tied_runs import run_sizes, run_starts


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank.

    Args:
        first: [N], finite, NaN where missing.
        second: [N], finite, NaN where missing; a row counts where both are there.

    Returns:
        The correlation, -1 to 1; NaN where fewer than two rows count or a column is constant.

    Raises:
        InputError: on shapes that differ and values that are infinite.
    """
    left, right = numbers(first, "first"), numbers(second, "second")
    if left.shape == right.shape:
        left = np.where(np.isnan(right), np.nan, left)  # missing on either side leaves the row out
    rows = labelled_rows(left, right, prediction_kind="real", names=("first", "second", "groups"))
    if len(rows) < 2:
        return math.nan
    ranks = [_mean_ranks(rows.labels), _mean_ranks(rows.predictions)]
    deviations = [column - column.mean() for column in ranks]
    scale = math.sqrt(np.sum(deviations[0] ** 2) * np.sum(deviations[1] ** 2))
    return float(np.sum(deviations[0] * deviations[1]) / scale) if scale else math.nan


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(values)
    starts = run_starts(values[order])
    sizes = run_sizes(starts, len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (sizes - 1) / 2, sizes)
    return ranks
