"""Collects, beside the metrics of a report, the statistics that give their bootstrap intervals.

Shapes: N impressions, M rows that a metric counts, U units, S values of a slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.metrics.bootstrap import Path, Statistic
from mmoe_ranker.metrics.resampling import Formula, ratio
from mmoe_ranker.metrics.sorted_rows import SortedRows
from mmoe_ranker.metrics.tied_runs import run_sizes

Kept: TypeAlias = NDArray[np.intp] | slice
"""Which M of the N rows count."""


class Units(NamedTuple):
    """What the bootstrap draws: `codes`, [N], the unit of each row from 0; `number` of them, U."""

    codes: NDArray[np.integer[Any]]
    number: int


class Statistics:
    """The statistics of metrics, added as they are reported.

    Args:
        units: None where no intervals are wanted; then nothing is kept.
    """

    def __init__(self, units: Units | None) -> None:
        self._units = units
        self._sums = metrics.UnitSums(units.number if units else 0)
        self._others: list[Statistic] = []

    @property
    def collected(self) -> list[Statistic]:
        """All of them."""
        return [self._sums, *self._others] if self._units else []

    def add_rows(self, path: Path, formula: Formula, kept: Kept, *columns: NDArray[Any]) -> None:
        """A formula of sums over rows: of `columns`, [M] each, on the rows `kept` of the N, then of their number."""
        if self._units:
            codes, count = self._units.codes[kept], self._units.number
            totals = [np.bincount(codes, column, count) for column in columns]
            self._sums.add(path, formula, *totals, np.bincount(codes, minlength=count))

    def add_groups(self, path: Path, metric: metrics.GroupedMetric, rows: SortedRows) -> None:
        """The mean of a metric over groups of rows, each group within one unit."""
        if self._units:
            units = self._units.codes[rows.rows_at(rows.segments)][metric.counts]
            values, weights = metric.values[metric.counts], metric.weights[metric.counts]
            weighted = np.bincount(units, values * weights, self._units.number)
            self._sums.add(path, ratio, weighted, np.bincount(units, weights, self._units.number))

    def add_group_auc(self, path: Path, metric: metrics.GroupedMetric, rows: SortedRows) -> None:
        """The mean of AUC over groups of rows, which may be of many units."""
        if self._units:
            units = self._units.codes[rows.order]
            if np.array_equal(units, np.repeat(units[rows.segments], run_sizes(rows.segments, len(rows)))):
                self.add_groups(path, metric, rows)
            else:
                self.add_areas(rows, auc=path)

    def add_areas(self, rows: SortedRows, **paths: Any) -> None:
        """What `ResampledAreas` has of sorted rows."""
        if self._units:
            self._others.append(metrics.ResampledAreas(rows, self._units.codes, **paths))

    def add_slices(
        self,
        codes: NDArray[np.integer[Any]],
        kept: Kept,
        paths: Sequence[Path],
        formulas: Mapping[str, tuple[Formula, Sequence[NDArray[Any]]]],
    ) -> None:
        """Formulas of sums over the rows `kept`, in each value of a slice: of columns, [M] each, then of their number.

        Args:
            codes: [N], the value of each row.
            kept: [M].
            paths: [S], of the values; the metric's name comes behind.
            formulas: by metric.
        """
        if self._units:
            counted = codes[kept]
            sums = metrics.SegmentSums(counted, len(paths), self._units.codes[kept], self._units.number)
            for name, (formula, columns) in formulas.items():
                sums.add([(*path, name) for path in paths], formula, *columns, np.ones(len(counted)))
            self._others.append(sums)
