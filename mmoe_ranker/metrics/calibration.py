"""Calibration: whether the predicted values are the observed rates, overall and bin by bin.

A product of predictions needs each of them calibrated, or its weights stop meaning what they say. A label of NaN is
missing and its row is left out; a value that is not defined is NaN.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics.rows import labelled_rows

_NAMES = ("labels", "predictions", "groups")


class ReliabilityCurve(NamedTuple):
    """Mean prediction against mean label, in C bins of rising prediction; empty bins are left out.

    Attributes:
        predicted: [C], mean prediction.
        observed: [C], mean label.
        weights: [C], rows (or sum of sample weights) in the bin.
    """

    predicted: NDArray[Any]
    observed: NDArray[Any]
    weights: NDArray[Any]

    @property
    def expected_calibration_error(self) -> float:
        """As the function of this name, from these bins; NaN without any."""
        if not len(self.weights):
            return math.nan
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.weights))


def calibration_ratio(labels: ArrayLike, predictions: ArrayLike, sample_weights: ArrayLike | None = None) -> float:
    """Sum of predictions over sum of labels: 1 is calibrated overall, above 1 predicts too much.

    Example:
        >>> calibration_ratio([1, 0, 0, 1], [0.5, 0.25, 0.25, 0.5])
        0.75

    Args:
        labels: [N], 0 and 1 or real, NaN where missing.
        predictions: [N], in the unit of the labels.
        sample_weights: [N], or None for 1 each.

    Returns:
        The ratio; NaN where the labels sum to 0.

    Raises:
        InputError: on shapes that differ and values that are not finite.
    """
    rows = labelled_rows(labels, predictions, sample_weights, prediction_kind="real", names=_NAMES)
    weights = 1.0 if rows.weights is None else rows.weights
    observed = float(np.sum(rows.labels * weights))
    return float(np.sum(rows.predictions * weights, dtype=np.float64)) / observed if observed else math.nan


def reliability_curve(
    labels: ArrayLike,
    probabilities: ArrayLike,
    sample_weights: ArrayLike | None = None,
    *,
    num_bins: int = 20,
    bins: str = "quantile",
) -> ReliabilityCurve:
    """Mean predicted probability against the observed rate, bin by bin.

    Example:
        >>> reliability_curve([0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75], num_bins=2).observed.tolist()
        [0.0, 1.0]

    Args:
        labels: [N], 0, 1 or NaN.
        probabilities: [N], 0 to 1.
        sample_weights: [N], or None for 1 each.
        num_bins: Number of bins, at least 1; equal probabilities always share a bin, so fewer may come back.
        bins: "quantile" (as many rows in each, which suits rates of a few per cent) or "uniform" (equal width).

    Returns:
        The curve; of no bins where no row counts.

    Raises:
        InputError: on shapes that differ, values out of range, an unknown kind of bins, fewer than one bin.
    """
    if isinstance(num_bins, bool) or not isinstance(num_bins, (int, np.integer)) or num_bins < 1:
        raise InputError(f"`num_bins` must be an integer of at least 1. Received: {num_bins!r}.")
    if bins not in ("quantile", "uniform"):
        raise InputError(f"`bins` must be quantile or uniform. Received: {bins!r}.")
    names = ("labels", "probabilities", "groups")
    rows = labelled_rows(
        labels, probabilities, sample_weights, label_kind="binary", prediction_kind="probability", names=names
    )
    if not len(rows):
        return ReliabilityCurve(np.empty(0), np.empty(0), np.empty(0))
    bin_of = quantile_bins(rows.predictions, num_bins) if bins == "quantile" else _uniform(rows.predictions, num_bins)
    weights = np.ones(len(rows)) if rows.weights is None else rows.weights
    total = np.bincount(bin_of, weights, num_bins)
    predicted = np.bincount(bin_of, weights * rows.predictions, num_bins)
    observed = np.bincount(bin_of, weights * rows.labels, num_bins)
    full = total > 0
    return ReliabilityCurve(predicted[full] / total[full], observed[full] / total[full], total[full])


def quantile_bins(values: NDArray[Any], num_bins: int) -> NDArray[np.intp]:
    """The bin of each value, [M] from 0, among bins of as many values each; equal values share one."""
    shares = np.arange(1, num_bins) / num_bins
    edges = np.quantile(values, shares, method="inverted_cdf")  # [num_bins - 1]
    return np.searchsorted(edges, values, side="left")  # bins are closed above: (edge, next edge]


def _uniform(values: NDArray[Any], num_bins: int) -> NDArray[np.intp]:
    return np.searchsorted(np.arange(1, num_bins) / num_bins, values, side="left")


def expected_calibration_error(
    labels: ArrayLike,
    probabilities: ArrayLike,
    sample_weights: ArrayLike | None = None,
    *,
    num_bins: int = 20,
    bins: str = "quantile",
) -> float:
    """Mean distance between predicted probability and observed rate, over the bins of the reliability curve.

        ECE = sum_c (weight_c / total weight) |predicted_c - observed_c|

    See "On Calibration of Modern Neural Networks" by Guo et al. (https://arxiv.org/abs/1706.04599), eq. 3, there with
    bins of equal width.

    Example:
        >>> expected_calibration_error([0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75], num_bins=2)
        0.25

    Args:
        labels: [N], 0, 1 or NaN.
        probabilities: [N], 0 to 1.
        sample_weights: [N], or None for 1 each.
        num_bins: As in `reliability_curve`.
        bins: As in `reliability_curve`.

    Returns:
        The error, 0 to 1, lower is better; NaN where no row counts. Never quite 0 on finite data: with n rows in a bin
        even a perfect model is off by about sqrt(p (1 - p) / n).

    Raises:
        InputError: as `reliability_curve` does.
    """
    curve = reliability_curve(labels, probabilities, sample_weights, num_bins=num_bins, bins=bins)
    return curve.expected_calibration_error
