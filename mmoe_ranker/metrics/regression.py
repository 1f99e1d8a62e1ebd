"""Metrics of one regression objective, such as watch time: RMSE, MAE, XAUC.

A label of NaN (the watch time of an impression that was not clicked) is missing and its row is left out; a value that
is not defined is NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.metrics.rows import Rows, labelled_rows
from mmoe_ranker.metrics.tied_runs import run_sizes, run_starts

_NAMES = ("labels", "predictions", "groups")


def rmse(labels: ArrayLike, predictions: ArrayLike, sample_weights: ArrayLike | None = None) -> float:
    """Root of the mean squared error, in the unit of the labels.

    Example:
        >>> rmse([1.0, 2.0, float("nan")], [4.0, 5.0, 7.0])
        3.0

    Args:
        labels: [N], NaN where missing.
        predictions: [N].
        sample_weights: [N], or None for 1 each.

    Returns:
        The error, lower is better; NaN where no row counts.

    Raises:
        InputError: on shapes that differ and values that are not finite.
    """
    rows = labelled_rows(labels, predictions, sample_weights, prediction_kind="real", names=_NAMES)
    return math.sqrt(_mean((rows.predictions - rows.labels) ** 2, rows))


def mae(labels: ArrayLike, predictions: ArrayLike, sample_weights: ArrayLike | None = None) -> float:
    """Mean absolute error, in the unit of the labels.

    Example:
        >>> mae([1.0, 2.0, float("nan")], [4.0, 6.0, 7.0])
        3.5

    Args:
        labels: [N], NaN where missing.
        predictions: [N].
        sample_weights: [N], or None for 1 each.

    Returns:
        The error, lower is better; NaN where no row counts.

    Raises:
        InputError: on shapes that differ and values that are not finite.
    """
    rows = labelled_rows(labels, predictions, sample_weights, prediction_kind="real", names=_NAMES)
    return _mean(np.abs(rows.predictions - rows.labels), rows)


def xauc(labels: ArrayLike, predictions: ArrayLike) -> float:
    """AUC for real labels: the share of pairs with different labels that the predictions order alike, exact.

        XAUC = sum over pairs (y_i > y_j) of ([s_i > s_j] + [s_i = s_j] / 2) / number of such pairs

    With labels of 0 and 1 it is the AUC. See "Deconfounding Duration Bias in Watch-time Prediction for Video
    Recommendation" by Zhan et al. (https://arxiv.org/abs/2206.06003). Pairs are counted in O(N log N) as by
    Knight, "A Computer Method for Calculating Kendall's Tau with Ungrouped Data" (1966), not sampled.

    Example:
        >>> round(xauc([10.0, 20.0, 30.0], [1.0, 3.0, 2.0]), 4)
        0.6667

    Args:
        labels: [N], NaN where missing.
        predictions: [N], any scale.

    Returns:
        The share, 0 to 1; NaN where no two labels differ.

    Raises:
        InputError: on shapes that differ, labels that are not finite, predictions that are NaN.
    """
    rows = labelled_rows(labels, predictions, names=_NAMES)
    if not len(rows):
        return math.nan
    order = np.lexsort((rows.predictions, rows.labels))
    sorted_labels = rows.labels[order]
    tied_labels = _num_pairs(run_starts(sorted_labels), len(rows))
    tied_both = _num_pairs(run_starts(sorted_labels, rows.predictions[order]), len(rows))
    comparable = len(rows) * (len(rows) - 1) // 2 - tied_labels
    if comparable == 0:
        return math.nan

    by_prediction = np.argsort(rows.predictions)
    starts = run_starts(rows.predictions[by_prediction])
    tied_predictions = _num_pairs(starts, len(rows))
    codes = np.empty(len(rows), dtype=np.int64)
    codes[by_prediction] = np.repeat(np.arange(len(starts)), run_sizes(starts, len(rows)))
    discordant = count_inversions(codes[order], len(starts))  # none among equal labels: sorted by prediction there
    tied = tied_predictions - tied_both
    return (comparable - discordant - tied / 2) / comparable


def count_inversions(values: NDArray[np.int64], num_values: int) -> int:
    """Number of pairs i < j with values[i] > values[j], bit by bit from the top.

    Two values are told apart by their highest differing bit. Rows stay in blocks of equal higher bits, in their first
    order inside a block; in each block a 1 that stands before a 0 is an inversion, and a stable partition then makes
    the blocks of the next bit. One pass over the rows a bit, in place of a Python merge sort.

    Args:
        values: [N], integers from 0 to num_values - 1.
        num_values: Above every value.

    Returns:
        The number of inversions.
    """
    inversions = 0
    block_start: NDArray[Any] = np.zeros(len(values), dtype=np.int64)
    index = np.arange(len(values))
    for bit in reversed(range((num_values - 1).bit_length())):
        prefix = values >> bit
        is_one = (prefix & 1).astype(bool)
        ones_before = np.cumsum(is_one) - is_one
        ones_before -= ones_before[block_start]
        inversions += int(np.sum(ones_before, where=~is_one))
        sizes = np.bincount(prefix)
        starts = np.cumsum(sizes) - sizes
        next_start = starts[prefix]
        target = next_start + np.where(is_one, ones_before, index - block_start - ones_before)
        moved, moved_start = np.empty_like(values), np.empty_like(block_start)
        moved[target], moved_start[target] = values, next_start
        values, block_start = moved, moved_start
    return inversions


def _num_pairs(starts: NDArray[np.intp], num_rows: int) -> int:
    sizes = run_sizes(starts, num_rows)
    return int(np.sum(sizes * (sizes - 1) // 2))


def _mean(errors: NDArray[Any], rows: Rows) -> float:
    if not len(rows) or (rows.weights is not None and rows.weights.sum() == 0):
        return math.nan
    return float(np.average(errors, weights=rows.weights))
