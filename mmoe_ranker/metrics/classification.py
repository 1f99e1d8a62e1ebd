"""Metrics of one binary objective over all impressions: AUC, PR-AUC, log loss, normalised entropy.

In all of them a label of NaN is missing and its row is left out, and the value is NaN where it is not defined (no row,
or labels of one class where both are needed) rather than an error, so that a table with a hole can still be printed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.metrics.rows import Rows, labelled_rows
from mmoe_ranker.metrics.sorted_rows import SortedRows
from mmoe_ranker.metrics.tied_runs import run_sizes, run_sums

Array = NDArray[Any]

PROBABILITY_FLOOR = 1e-7
"""Probabilities are clipped to [floor, 1 - floor] in the log loss: float32 knows no number nearer to 1 than 6e-8."""


def auc(labels: ArrayLike, scores: ArrayLike, sample_weights: ArrayLike | None = None) -> float:
    """Area under the ROC curve, exact, by ranks.

        AUC = sum over pairs (i positive, j negative) of v_i v_j ([s_i > s_j] + [s_i = s_j] / 2) / sum of v_i v_j

    Example:
        >>> auc([1, 0, 1, 0], [0.9, 0.6, 0.6, 0.2])
        0.875

    Args:
        labels: [N], 0, 1 or NaN.
        scores: [N], any scale.
        sample_weights: [N], v above, or None for 1 each.

    Returns:
        The area, 0 to 1; NaN where the labels are not of both classes.

    Raises:
        InputError: on shapes that differ and values out of range.
    """
    rows = labelled_rows(labels, scores, sample_weights, label_kind="binary")
    return auc_of(SortedRows.best_first(rows)) if len(rows) else math.nan


def auc_of(rows: SortedRows) -> float:
    """`auc` of rows that are sorted already, in one segment."""
    return float(segment_auc(rows)[0])


def segment_auc(rows: SortedRows) -> NDArray[np.float64]:
    """AUC inside each segment of sorted rows; `auc` is the case of one segment.

    Args:
        rows: binary labels, S segments.

    Returns:
        [S], NaN where a segment lacks a class.
    """
    positives = run_sums(rows.labels if rows.weights is None else rows.labels * rows.weights, rows.ties)  # [R]
    totals = run_sizes(rows.ties, len(rows)) if rows.weights is None else run_sums(rows.weights, rows.ties)
    negatives = totals - positives
    first_run = np.searchsorted(rows.ties, rows.segments)
    until = np.cumsum(positives)
    # What stood before the segment is taken out of its sum, not out of each row: whole weights stay exact.
    before = until[first_run] - positives[first_run]  # [S]
    until -= positives / 2
    until *= negatives
    all_negatives = run_sums(negatives, first_run)
    won = run_sums(until, first_run) - before * all_negatives  # [S]
    pairs = run_sums(positives, first_run) * all_negatives
    return np.divide(won, pairs, out=np.full(len(pairs), math.nan), where=pairs > 0)


def pr_auc(labels: ArrayLike, scores: ArrayLike, sample_weights: ArrayLike | None = None) -> float:
    """Area under the precision-recall curve, as average precision (no interpolation).

        AP = sum_n (recall_n - recall_{n-1}) precision_n over the distinct scores, falling

    Example:
        >>> round(pr_auc([1, 0, 1], [0.9, 0.5, 0.2]), 4)
        0.8333

    Args:
        labels: [N], 0, 1 or NaN.
        scores: [N], any scale.
        sample_weights: [N], or None for 1 each.

    Returns:
        The area; its floor for a random order is the share of positives. NaN where there is no positive.

    Raises:
        InputError: on shapes that differ and values out of range.
    """
    rows = labelled_rows(labels, scores, sample_weights, label_kind="binary")
    return pr_auc_of(SortedRows.best_first(rows)) if len(rows) else math.nan


def pr_auc_of(rows: SortedRows) -> float:
    """`pr_auc` of rows that are sorted already, in one segment."""
    positives = run_sums(rows.labels if rows.weights is None else rows.labels * rows.weights, rows.ties)  # [R]
    total = positives.sum()
    if total == 0:
        return math.nan
    if rows.weights is None:
        seen = np.append(rows.ties[1:], len(rows)).astype(np.float64)
    else:
        seen = np.cumsum(run_sums(rows.weights, rows.ties))
    # Where nothing of weight was seen yet no positive was either, and the step of recall is 0.
    precision = np.divide(np.cumsum(positives), seen, out=np.zeros(len(seen)), where=seen > 0)
    precision *= positives
    return float(np.sum(precision) / total)


def log_loss(labels: ArrayLike, probabilities: ArrayLike, sample_weights: ArrayLike | None = None) -> float:
    """Mean cross entropy, in nats: -mean(y log p + (1 - y) log(1 - p)), p clipped by `PROBABILITY_FLOOR`.

    Example:
        >>> round(log_loss([1, 0], [0.8, 0.2]), 4)
        0.2231

    Args:
        labels: [N], 0, 1 or NaN.
        probabilities: [N], 0 to 1.
        sample_weights: [N], or None for 1 each.

    Returns:
        The loss, lower is better; NaN where no row counts.

    Raises:
        InputError: on shapes that differ and values out of range.
    """
    return _cross_entropy(_probability_rows(labels, probabilities, sample_weights))


def normalized_entropy(labels: ArrayLike, probabilities: ArrayLike, sample_weights: ArrayLike | None = None) -> float:
    """Log loss over the log loss of always predicting the mean label: below 1 is better than knowing only the rate.

    See "Practical Lessons from Predicting Clicks on Ads at Facebook" by He et al.
    (https://doi.org/10.1145/2648584.2648589), eq. 1.

    Example:
        >>> round(normalized_entropy([1, 0], [0.8, 0.2]), 4)
        0.3219

    Args:
        labels: [N], 0, 1 or NaN.
        probabilities: [N], 0 to 1.
        sample_weights: [N], or None for 1 each.

    Returns:
        The ratio, lower is better; NaN where the labels are not of both classes.

    Raises:
        InputError: on shapes that differ and values out of range.
    """
    rows = _probability_rows(labels, probabilities, sample_weights)
    if not len(rows) or (rows.weights is not None and rows.weights.sum() == 0):
        return math.nan
    rate = float(np.average(rows.labels, weights=rows.weights))
    if not 0 < rate < 1:
        return math.nan
    return _cross_entropy(rows) / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def _probability_rows(labels: ArrayLike, probabilities: ArrayLike, sample_weights: ArrayLike | None) -> Rows:
    names = ("labels", "probabilities", "groups")
    return labelled_rows(
        labels, probabilities, sample_weights, label_kind="binary", prediction_kind="probability", names=names
    )


def _cross_entropy(rows: Rows) -> float:
    if not len(rows) or (rows.weights is not None and rows.weights.sum() == 0):
        return math.nan
    return float(np.average(cross_entropies(rows.labels, rows.predictions), weights=rows.weights))


def cross_entropies(labels: Array, probabilities: Array) -> NDArray[np.float64]:
    """Each row's part in the log loss, [M], clipped as there; labels of 0 and 1, none missing."""
    of_label = np.where(labels == 1, probabilities, 1 - probabilities.astype(np.float64, copy=False))
    np.clip(of_label, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR, out=of_label)
    np.log(of_label, out=of_label)
    return np.negative(of_label, out=of_label)
