"""How far two columns agree, and how sure a mean is: Spearman's correlation, bootstrap intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics.rows import labelled_rows, numbers
from mmoe_ranker.metrics.tied_runs import run_sizes, run_starts

_DRAWS_AT_ONCE = 1 << 22  # 32 MiB of indices: replicates share a pass where groups are few, memory stays bounded


class Interval(NamedTuple):
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float


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


def bootstrap_interval(
    values: ArrayLike,
    seed: int,
    level: float = 0.95,
    weights: ArrayLike | None = None,
    num_replicates: int = 1000,
) -> Interval:
    """Percentile bootstrap interval of a (weighted) mean over groups, drawn anew with replacement.

    The groups (requests, users) are the unit, because impressions of one request are not independent. For two models on
    the same impressions pass the differences of their values: that pairs them.

    Args:
        values: [G], a value a group; NaN (a group that does not count) is left out.
        seed: Seed of the draws.
        level: Coverage, above 0 and below 1.
        weights: [G], at least 0, or None for 1 each.
        num_replicates: Number of draws, at least 1.

    Returns:
        Mean, low and high; all NaN where no group counts, low and high NaN where only one does.

    Raises:
        InputError: on shapes that differ, values out of range.
    """
    if not 0 < level < 1:
        raise InputError(f"`level` must be above 0 and below 1. Received: {level!r}.")
    if num_replicates < 1:
        raise InputError(f"`num_replicates` must be at least 1. Received: {num_replicates!r}.")
    column = numbers(values, "values")
    rows = labelled_rows(column, np.zeros(column.shape), weights, names=("values", "values", "groups"))
    weight = np.ones(len(rows)) if rows.weights is None else rows.weights
    counts = weight > 0
    weight, weighted = weight[counts], (rows.labels * weight)[counts]
    if not len(weight):
        return Interval(math.nan, math.nan, math.nan)
    mean = float(weighted.sum() / weight.sum())
    if len(weight) == 1:
        return Interval(mean, math.nan, math.nan)
    means = _replicate_means(weighted, weight, num_replicates, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def _replicate_means(
    weighted: NDArray[np.float64], weight: NDArray[np.float64], num_replicates: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    means = np.empty(num_replicates)
    at_once = max(1, _DRAWS_AT_ONCE // len(weight))
    equal = bool(np.all(weight == weight[0]))
    for start in range(0, num_replicates, at_once):
        size = min(at_once, num_replicates - start)
        drawn = rng.integers(len(weight), size=(size, len(weight)), dtype=np.int64)
        total = weight[0] * len(weight) if equal else weight[drawn].sum(axis=1)
        means[start : start + size] = weighted[drawn].sum(axis=1) / total
    return means


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(values)
    starts = run_starts(values[order])
    sizes = run_sizes(starts, len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (sizes - 1) / 2, sizes)
    return ranks
