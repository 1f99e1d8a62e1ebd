"""Predictions of more impressions than fit into memory: a sample of whole units, and totals over everything.

Up to `MAX_ROWS` impressions all are kept. Beyond, those stay whose unit (the request, or what the bootstrap draws) has
a hash below a threshold, which is halved as often as it takes: whole units, the same ones for any model on the same
impressions and in any order. What is read from the sample has the bootstrap's interval; AUC, PR-AUC, log loss,
normalised entropy and the calibration ratio are of all impressions, from `BinnedTotals`.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.examples import REQUEST_ID
from mmoe_ranker.metrics.binned import BinnedTotals
from mmoe_ranker.metrics.tied_runs import run_sizes, run_starts
from mmoe_ranker.predictions import Everything, Predictions

MAX_ROWS = 10_000_000
"""How many impressions are kept at most."""
_HASHES = 1 << 32


class BoundedPredictions:
    """Collects predictions batch by batch.

    Args:
        config: the config that trained.
    """

    def __init__(self, config: Config) -> None:
        self._binary = [objective.name for objective in config.objectives if objective.kind == "binary"]
        self._by = config.evaluation.bootstrap.by
        self._batches: list[Predictions] = []
        self._kept = self._seen = 0
        self._threshold = _HASHES
        self._totals: dict[str, BinnedTotals] = {}
        self._pools: dict[str, dict[Any, Any]] = {}

    def add(self, batch: Predictions) -> None:
        """Adds a batch."""
        columns = {name: self._shared(name, column) for name, column in batch.columns.items()}
        batch = dataclasses.replace(batch, columns=columns)
        self._seen += len(batch)
        if self._totals:
            self._count(batch)
            batch = self._sampled(batch)
        self._batches.append(batch)
        self._kept += len(batch)
        while self._kept > MAX_ROWS and self._threshold > 1:
            if not self._totals:
                self._totals = {name: BinnedTotals() for name in self._binary}
                for one in self._batches:
                    self._count(one)
            self._threshold //= 2
            self._batches = [self._sampled(one) for one in self._batches]
            self._kept = sum(map(len, self._batches))

    def result(self) -> Predictions:
        """What was kept, in order; with what is known of everything, where that is more."""
        everything = None
        if self._totals:
            everything = Everything(self._seen, self._threshold / _HASHES, self._by, self._totals)
        return Predictions(
            _joined([batch.predictions for batch in self._batches]),
            _joined([batch.labels for batch in self._batches]),
            _joined([batch.columns for batch in self._batches]),
            seen=_joined([batch.seen or {} for batch in self._batches]) or None,
            everything=everything,
        )

    def _shared(self, name: str, column: NDArray[Any]) -> NDArray[Any]:
        """The column with one object for each distinct id, where every batch brings its own: less memory."""
        if column.dtype != object or not len(column):
            return column
        pool, starts = self._pools.setdefault(name, {}), run_starts(column)
        values = np.empty(len(starts), object)
        values[:] = [pool.setdefault(value, value) for value in column[starts]]
        return np.repeat(values, run_sizes(starts, len(column)))

    def _count(self, batch: Predictions) -> None:
        for name, totals in self._totals.items():
            totals.update(batch.labels[name], batch.predictions[name])

    def _sampled(self, batch: Predictions) -> Predictions:
        column = batch.columns[self._by]
        numbered = column.dtype.kind in "iu"
        unknown = column == (-1 if numbered else b"")
        if unknown.any():  # there a request is a unit by itself
            column = np.where(unknown, batch.columns[REQUEST_ID], column.astype(bytes) if numbered else column)
        units, of_row = np.unique(column, return_inverse=True)
        hashes = np.array([zlib.crc32(unit if isinstance(unit, bytes) else str(unit).encode()) for unit in units])
        return batch.select(np.flatnonzero(hashes[of_row] < self._threshold) if len(units) else of_row)


def _joined(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
