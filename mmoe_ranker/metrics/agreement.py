"""How far two columns agree: Spearman's rank correlation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.metrics.rows import labelled_rows, numbers
from mmoe_ranker.metrics.tied_runs import mean_ranks


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank.

    Example:
        >>> spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0])
        0.5

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
    return _cosine(_centred_ranks(rows.labels), _centred_ranks(rows.predictions))


def rank_correlations(columns: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """Spearman's correlation of every column with every other, each pair on the rows where both are there.

    Args:
        columns: by name, [N], finite, NaN where missing.

    Returns:
        By name and name, both ways; 1 of a column with itself. NaN as in `spearman`, and where a value is infinite.
    """
    found: dict[str, dict[str, float]] = {name: {name: 1.0} for name in columns}
    if len(columns) < 2:
        return found
    ranks = {
        name: _centred_ranks(column)
        for name, column in columns.items()
        if len(column) > 1 and np.all(np.isfinite(column))
    }
    for one, other in itertools.combinations(columns, 2):
        if one in ranks and other in ranks:
            value = _cosine(ranks[one], ranks[other])
        elif np.any(np.isinf(columns[one])) or np.any(np.isinf(columns[other])):
            value = math.nan
        else:
            value = spearman(columns[one], columns[other])
        found[one][other] = found[other][one] = value
    return found


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # Of 0 and 1 the ranks are a straight line, and that needs no sort.
    ranks = values if np.all((values == 0) | (values == 1)) else mean_ranks(np.argsort(values), values)
    return ranks - ranks.mean()


def _cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    scale = math.sqrt((first @ first) * (second @ second))
    return float(first @ second) / scale if scale else math.nan
