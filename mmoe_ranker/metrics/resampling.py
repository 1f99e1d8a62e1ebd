"""Metrics as functions of how often each unit was drawn: what `bootstrap` evaluates.

What is a formula of sums over rows (log loss, RMSE, a mean over requests) needs its sums a unit alone, and is one
matrix product for all draws. What depends on the order of rows (AUC, PR-AUC) takes its rows sorted once, and a draw is
one cumulative sum over them.

Shapes: M of N rows count, U units, B draws, S segments, P positive rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker.metrics.bootstrap import Counts, Path
from mmoe_ranker.metrics.sorted_rows import SortedRows
from mmoe_ranker.metrics.tied_runs import run_sizes

Formula: TypeAlias = Callable[..., NDArray[np.float64]]
"""A metric of sums, each [B], to [B]; NaN where it is not defined."""


class UnitSums:
    """Metrics that are formulas of sums over units.

    Args:
        num_units: U.
    """

    def __init__(self, num_units: int) -> None:
        self._num_units = num_units
        self._totals: list[NDArray[Any]] = []
        self._matrix: NDArray[np.float64] | None = None  # [C, U]
        self._formulas: list[tuple[Path, Formula, slice]] = []

    def add(self, path: Path, formula: Formula, *totals: NDArray[Any]) -> None:
        """Adds the metric `formula(*sums)`.

        Args:
            path: the metric's name.
            formula: of as many sums as there are totals.
            *totals: [U] each, what each unit brings to a sum.
        """
        self._formulas.append((path, formula, slice(len(self._totals), len(self._totals) + len(totals))))
        self._totals += totals
        self._matrix = None

    def __call__(self, counts: Counts) -> dict[Path, NDArray[np.float64]]:
        """The metrics' values, [B] each."""
        if self._matrix is None:
            self._matrix = np.array(self._totals, np.float64).reshape(len(self._totals), self._num_units)
        # Not by BLAS, whose sums depend on its number of threads, and whose threads stall each other on busy machines.
        sums = np.einsum("cu,bu->cb", self._matrix, counts.astype(np.float64))
        return {path: formula(*sums[columns]) for path, formula, columns in self._formulas}


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    """numerator / denominator, both [B] or of another shape; NaN where the latter is 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator != 0)


def root_ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """sqrt(numerator / denominator), [B] each: the RMSE, of squared errors and rows."""
    return np.sqrt(ratio(numerator, denominator))


def entropy_ratio(
    loss: NDArray[np.float64], positives: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The normalised entropy [B], NaN where all labels are alike.

    Args:
        loss: [B], summed log loss.
        positives: [B].
        rows: [B].
    """
    rate = ratio(positives, rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        return np.where((rate > 0) & (rate < 1), ratio(loss, rows) / entropy, np.nan)


class ResampledAreas:
    """AUC and PR-AUC of sorted rows: one gather and one cumulative sum a draw.

    Args:
        rows: M rows with labels of 0 and 1 and no weights, in one segment or several.
        units: [N], the unit of each row.
        auc: the name of the mean of the segments' AUC, each weighted by its rows (of one segment: its AUC).
        pr_auc: the name of the PR-AUC of all rows, for rows in one segment.
        segment_aucs: the names of the segments' own AUC, [S].
    """

    def __init__(
        self,
        rows: SortedRows,
        units: NDArray[Any],
        auc: Path | None = None,
        pr_auc: Path | None = None,
        segment_aucs: Sequence[Path] = (),
    ) -> None:
        self._paths = auc, pr_auc, segment_aucs
        self._units = units[rows.order].astype(np.intp, copy=False)  # [M]; other integers are slower to index by
        positive = np.flatnonzero(rows.labels)  # [P]
        self._positive_units = self._units[positive]
        # Runs of equal scores that hold a positive: H of them, each from place `start` to `end`.
        run = np.searchsorted(rows.ties, positive, side="right") - 1
        first = np.ones(len(run), bool)
        first[1:] = run[1:] != run[:-1]
        held = run[first]
        self._start = rows.ties[held]
        self._end = self._start + run_sizes(rows.ties, len(rows))[held]
        self._positives_until = np.append(np.flatnonzero(first), len(positive))[1:]  # among the P
        self._segments = np.append(rows.segments, len(rows))  # [S + 1]
        self._segment_positives = np.searchsorted(positive, self._segments)  # [S + 1]
        self._first_run = np.searchsorted(self._start, self._segments)  # [S + 1]

    def __call__(self, counts: Counts) -> dict[Path, NDArray[np.float64]]:
        """The metrics' values, [B] each."""
        auc, pr_auc, segment_aucs = self._paths
        weight = np.zeros(len(self._units) + 1, np.int64)
        positive = np.zeros(len(self._positive_units) + 1, np.int64)
        found: list[tuple[float, float, NDArray[np.float64]]] = []
        for drawn in counts:
            np.cumsum(drawn[self._units], out=weight[1:])  # weight before each place
            np.cumsum(drawn[self._positive_units], out=positive[1:])
            found.append(self._areas(weight, positive))
        values: dict[Path, NDArray[np.float64]] = {}
        if auc is not None:
            values[auc] = np.array([one[0] for one in found])
        if pr_auc is not None:
            values[pr_auc] = np.array([one[1] for one in found])
        if segment_aucs:
            values |= zip(segment_aucs, np.array([one[2] for one in found]).T, strict=True)
        return values

    def _areas(
        self, weight: NDArray[np.int64], positive: NDArray[np.int64]
    ) -> tuple[float, float, NDArray[np.float64]]:
        at_end, positives_at_end = weight[self._end], positive[self._positives_until]  # [H]
        run_positives = np.diff(positives_at_end, prepend=0)
        rows_before, positives_before = weight[self._segments], positive[self._segment_positives]  # [S + 1]
        negatives_before = rows_before - positives_before
        positives, negatives = np.diff(positives_before), np.diff(negatives_before)
        # A run's positives beat the segment's negatives but those before the run's end, of which its own count half.
        beaten_by = at_end - positives_at_end
        beaten_by += weight[self._start]
        beaten_by -= positives_at_end
        beaten_by += run_positives
        beaten_by *= run_positives
        lost = np.zeros(len(beaten_by) + 1, np.int64)  # twice, in integers
        np.cumsum(beaten_by, out=lost[1:])
        won = 2 * positives * negatives_before[1:] - np.diff(lost[self._first_run])
        pairs = positives * negatives
        areas = np.full(len(pairs), np.nan)
        np.divide(won, 2 * pairs, out=areas, where=pairs > 0)
        rows = np.diff(rows_before)[pairs > 0]
        mean = float(np.average(areas[pairs > 0], weights=rows)) if len(rows) else np.nan
        if self._paths[1] is None or not positive[-1]:
            return mean, np.nan, areas
        precision = positives_at_end / np.maximum(at_end, 1)
        precision *= run_positives
        return mean, float(precision.sum()) / float(positive[-1]), areas


class SegmentSums:
    """Metrics that are formulas of sums over rows, in each value of a slice.

    Args:
        slices: [M], the code from 0 to S - 1 of each row's value.
        num_slices: S.
        units: [M], the unit of each row.
        num_units: U.
    """

    def __init__(self, slices: NDArray[Any], num_slices: int, units: NDArray[Any], num_units: int) -> None:
        # Rows of one value and one unit are drawn together, so they are summed here once.
        cells, self._cell_of_row = np.unique(slices.astype(np.int64) * num_units + units, return_inverse=True)
        self._cell_units = cells % num_units
        self._bounds = np.searchsorted(cells, np.arange(num_slices + 1) * num_units)  # a value's cells stand together
        self._totals: list[NDArray[np.float64]] = []
        self._metrics: list[tuple[Sequence[Path], Formula, slice]] = []

    def add(self, paths: Sequence[Path], formula: Formula, *columns: NDArray[Any]) -> None:
        """Adds the metric `formula(*sums)` of every value.

        Args:
            paths: the metric's name in each value, [S].
            formula: of as many sums as there are columns.
            *columns: [M] each, what each row brings to a sum.
        """
        cells = len(self._cell_units)
        self._metrics.append((paths, formula, slice(len(self._totals), len(self._totals) + len(columns))))
        self._totals += [np.bincount(self._cell_of_row, column, cells).astype(np.float64) for column in columns]

    def __call__(self, counts: Counts) -> dict[Path, NDArray[np.float64]]:
        """The metrics' values, [B] each."""
        found: dict[Path, NDArray[np.float64]] = {}
        totals = np.array(self._totals).reshape(len(self._totals), len(self._cell_units))  # [C, cells]
        for place, (start, end) in enumerate(itertools.pairwise(self._bounds)):
            drawn = counts[:, self._cell_units[start:end]].astype(np.float64)
            sums = np.einsum("cu,bu->cb", totals[:, start:end], drawn)  # [C, B]
            found |= {paths[place]: formula(*sums[columns]) for paths, formula, columns in self._metrics}
        return found
