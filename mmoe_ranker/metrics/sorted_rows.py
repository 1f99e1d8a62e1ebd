"""Rows best score first, by themselves or inside groups: sorted once for all the metrics that need the order.

The scores are sorted once. The order inside groups comes from it: group and place in the order make one integer, and
integers sort several times faster than pairs of columns do.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.metrics.rows import Rows, group_codes
from mmoe_ranker.metrics.tied_runs import run_starts

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class SortedRows:
    """M of N rows sorted by group and falling score, S groups, R runs of equal scores inside a group.

    Attributes:
        labels: [M], in this order; booleans, which take an eighth of the memory, where they are 0 and 1.
        weights: [M], in this order, or None where every row weighs 1.
        segments: [S], first place of each group; one of all rows where they are not grouped.
        ties: [R], first place of each run of equal scores inside a group.
        by_score: [M], which of the N rows stands at each place of the order by score alone.
        places: [M], the place in that order of the row at each place of this one; None where it is the same.
    """

    labels: Array
    weights: NDArray[np.float64] | None
    segments: NDArray[np.intp]
    ties: NDArray[np.intp]
    by_score: NDArray[np.intp]
    places: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def order(self) -> NDArray[np.intp]:
        """[M], which of the N rows stands at each place."""
        return self.by_score if self.places is None else self.by_score[self.places]

    # Kept, because scattering once and reading in order is cheaper than gathering for each grouping.
    @functools.cached_property
    def _place_of_row(self) -> NDArray[np.int32]:
        place_of_row = np.full(int(self.by_score.max(initial=-1)) + 1, -1, np.int32)
        place_of_row[self.by_score] = np.arange(len(self), dtype=np.int32)
        return place_of_row

    @functools.cached_property
    def _run_of_place(self) -> NDArray[np.int32]:
        run_of_place = np.zeros(len(self), np.int32)
        run_of_place[self.ties[1:]] = 1
        return np.cumsum(run_of_place, out=run_of_place)

    def rows_at(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which of the N rows stand at these places."""
        return self.by_score[places if self.places is None else self.places[places]]

    @classmethod
    def best_first(cls, rows: Rows) -> SortedRows:
        """All rows in one segment.

        Args:
            rows: M rows, at least one.

        Returns:
            The rows, sorted by their predictions.
        """
        falling = -rows.predictions
        order = np.argsort(falling)
        weights = None if rows.weights is None else rows.weights[order]
        labels = (rows.labels == 1)[order] if rows.binary else rows.labels[order]
        ties = run_starts(falling[order])
        return cls(labels, weights, np.zeros(1, np.intp), ties, order if rows.kept is None else rows.kept[order])

    def within(self, groups: ArrayLike) -> SortedRows:
        """The rows, which are in one segment, inside groups, each best score first; the groups in order of their codes.

        Args:
            groups: [N], a group a row, as `group_codes` takes them.
        """
        place_bits = max(1, (len(self) - 1).bit_length())
        codes, place_of_row = dense_codes(groups), self._place_of_row
        if len(self) < len(codes):
            counted = np.flatnonzero(place_of_row >= 0)
            codes, place_of_row = codes[counted], place_of_row[counted]
        packed = codes.astype(np.int64)  # [M]
        packed <<= place_bits
        packed |= place_of_row
        packed.sort()
        places = packed & ((1 << place_bits) - 1)
        packed >>= place_bits
        segments = run_starts(packed)
        ties = run_starts(packed, self._run_of_place[places])
        weights = None if self.weights is None else self.weights[places]
        return SortedRows(self.labels[places], weights, segments, ties, self.by_score, places)

    def relabelled(self, labels: NDArray[np.float64]) -> SortedRows | None:
        """The same order with other labels, without the rows that have none; None where no row is left.

        Args:
            labels: [N], NaN where missing.
        """
        sorted_labels = labels[self.order]
        present = ~np.isnan(sorted_labels)
        if not present.any():
            return None
        if present.all():
            return SortedRows(sorted_labels, self.weights, self.segments, self.ties, self.by_score, self.places)
        before = np.concatenate([[0], np.cumsum(present)])  # [M + 1], rows kept before each place

        def first_kept(starts: NDArray[np.intp]) -> NDArray[np.intp]:
            places = before[np.append(starts, len(present))]
            return places[:-1][np.diff(places) > 0]

        weights = None if self.weights is None else self.weights[present]
        kept = self.order[present]
        return SortedRows(sorted_labels[present], weights, first_kept(self.segments), first_kept(self.ties), kept)


def dense_codes(groups: ArrayLike) -> NDArray[np.integer[Any]]:
    """Codes from 0 in the order of `group_codes`, few bits wide.

    Args:
        groups: [N], as `group_codes` takes them.

    Returns:
        [N], at least 0 and below 2**31 where N is.
    """
    codes = group_codes(groups)
    if codes.dtype.kind in "iub" and len(codes):
        low, high = int(codes.min()), int(codes.max())
        if low == 0 and high < 1 << 31 and codes.dtype.kind != "b":
            return codes
        if high - low < 1 << 31:
            return (codes - codes.min()).astype(np.int64) if codes.dtype.kind == "u" else codes.astype(np.int64) - low
    return np.unique(codes, return_inverse=True)[1].astype(np.int64, copy=False)
