"""Metrics inside groups: a value a group, and their weighted mean with the number of groups that counted.

Ranking happens inside a request, so an order across requests or users proves little: a model that knows only who
clicks a lot has a fine AUC and ranks nothing. Within one position, all impressions had the same chance of being seen,
which is the fair reading of a model that is blind to position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.metrics.classification import segment_auc
from mmoe_ranker.metrics.rows import labelled_rows
from mmoe_ranker.metrics.sorted_rows import SortedRows
from mmoe_ranker.metrics.tied_runs import run_sizes, run_sums


@dataclass(frozen=True, eq=False)
class GroupedMetric:
    """A metric inside each group, and over all of them.

    Attributes:
        groups: [G], the groups that have a labelled row, as they were given.
        values: [G], the metric, NaN where it is not defined in the group.
        weights: [G], the group's weight in `value`.
    """

    groups: NDArray[Any]
    values: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def counts(self) -> NDArray[np.bool_]:
        """[G], whether the group counts: its metric is defined in it."""
        return ~np.isnan(self.values)

    @property
    def value(self) -> float:
        """The weighted mean over the groups that count; NaN where there is none."""
        counts = self.counts
        return float(np.average(self.values[counts], weights=self.weights[counts])) if counts.any() else math.nan

    @property
    def groups_counted(self) -> int:
        """Number of groups that count."""
        return int(self.counts.sum())

    @property
    def groups_total(self) -> int:
        """Number of groups that have a labelled row."""
        return len(self.values)


def group_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    sample_weights: ArrayLike | None = None,
) -> GroupedMetric:
    """AUC inside each group, averaged; groups of one class are skipped.

        GAUC = sum_g weight_g AUC_g / sum_g weight_g,  weight_g the number (or sum of weights) of its labelled rows

    See "Deep Interest Network for Click-Through Rate Prediction" by Zhou et al. (https://arxiv.org/abs/1706.06978).

    Example:
        >>> group_auc([1, 0, 0, 1, 0], [0.2, 0.1, 0.9, 0.8, 0.7], ["a", "a", "b", "b", "b"]).value
        0.7

    Args:
        labels: [N], 0, 1 or NaN.
        scores: [N], any scale.
        groups: [N], users, requests, ...: numbers (NaN for none) or strings; in any order.
        sample_weights: [N], or None for 1 each.

    Returns:
        Value, groups that counted, groups in all.

    Raises:
        InputError: on shapes that differ, values out of range.
    """
    return _auc_by_group(labels, scores, groups, "groups", sample_weights)


def auc_within(
    labels: ArrayLike, scores: ArrayLike, positions: ArrayLike, sample_weights: ArrayLike | None = None
) -> GroupedMetric:
    """AUC inside each position, row-weighted over the positions that have both classes.

    Example:
        >>> auc_within([1, 0, 1, 0], [0.2, 0.1, 0.8, 0.9], [1, 1, 2, 2]).value
        0.5

    Args:
        labels: [N], 0, 1 or NaN.
        scores: [N], any scale.
        positions: [N], NaN where unknown; such rows are left out.
        sample_weights: [N], or None for 1 each.

    Returns:
        Value, positions that counted, positions in all.

    Raises:
        InputError: on shapes that differ and values out of range.
    """
    return _auc_by_group(labels, scores, positions, "positions", sample_weights)


def group_auc_of(rows: SortedRows, groups: ArrayLike) -> GroupedMetric:
    """`group_auc` of rows that are sorted within their groups already.

    Args:
        rows: M of N rows, with binary labels.
        groups: [N], as the caller names them.
    """
    areas = segment_auc(rows)
    if rows.weights is None:
        weights = run_sizes(rows.segments, len(rows)).astype(np.float64)
    else:
        weights = run_sums(rows.weights, rows.segments)
    return GroupedMetric(group_ids(rows, groups), areas, weights)


def group_ids(rows: SortedRows, groups: ArrayLike) -> NDArray[Any]:
    """The group of each segment, [S], as the caller names it in `groups`, [N]."""
    return np.asarray(groups)[rows.rows_at(rows.segments)]


def _auc_by_group(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    groups_name: str,
    sample_weights: ArrayLike | None,
) -> GroupedMetric:
    names = ("labels", "scores", groups_name)
    rows = labelled_rows(labels, scores, sample_weights, groups, label_kind="binary", names=names)
    if not len(rows):
        return GroupedMetric(np.asarray(groups)[:0], np.empty(0), np.empty(0))
    return group_auc_of(SortedRows.best_first(rows).within(groups), groups)
