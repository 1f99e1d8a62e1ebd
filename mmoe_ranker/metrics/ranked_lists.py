"""Lists of requests, sorted once for all the metrics of their order; `ranking` has them as functions.

Shapes: M rows, G requests, R runs of equal scores inside a request.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics.grouped import GroupedMetric, group_ids
from mmoe_ranker.metrics.sorted_rows import SortedRows
from mmoe_ranker.metrics.tied_runs import run_sizes, run_sums


class RankedLists:
    """The lists of G requests, sorted once for all the metrics of their order.

    Args:
        rows: M of N rows sorted within requests; the labels at least 0.
        requests: [N], as the caller names them.
    """

    def __init__(self, rows: SortedRows, requests: ArrayLike) -> None:
        self._gains = rows.labels
        self._starts = rows.segments  # [G]
        self._ties = rows.ties  # [R], first place of each run of equal scores inside a request
        self._sizes = run_sizes(rows.segments, len(rows))  # [G]
        self._tie_sizes = run_sizes(rows.ties, len(rows))  # [R]
        self._first_tie = np.searchsorted(rows.ties, rows.segments)  # [G]
        self._ties_before = rows.ties - np.repeat(rows.segments, run_sizes(self._first_tie, len(rows.ties)))  # [R]
        self._requests = group_ids(rows, requests)
        self._binary = rows.labels.dtype == bool or bool(np.all((rows.labels == 0) | (rows.labels == 1)))
        self._positives = run_sums(self._gains if self._binary else self._gains > 0, rows.ties)  # [R]

    def ndcg(self, k: int | None = None) -> GroupedMetric:
        """As the function `ndcg`."""
        check_k(k)
        discounts = 1.0 / np.log2(2.0 + np.arange(self._sizes.max()))
        if k is not None:
            discounts[k:] = 0.0
        up_to = np.concatenate([[0.0], np.cumsum(discounts)])  # sum of the discounts of the ranks before each
        # Every row of a run expects the run's mean discount, so its gains and its discounts may be summed apart.
        discount = up_to[self._ties_before + self._tie_sizes] - up_to[self._ties_before]  # [R]
        gains = self._positives if self._binary else run_sums(self._gains, self._ties)
        dcg = run_sums(gains * discount / self._tie_sizes, self._first_tie)  # [G]
        if self._binary:
            ideal = up_to[run_sums(self._positives, self._first_tie).astype(np.intp)]
        else:
            request = np.repeat(np.arange(len(self._starts)), self._sizes)
            best_first = np.lexsort((-self._gains, request))  # requests keep their place, and so do the ranks
            ranks = np.arange(len(request)) - np.repeat(self._starts, self._sizes)
            ideal = run_sums(self._gains[best_first] * discounts[ranks], self._starts)
        return self._per_request(dcg, ideal)

    def recall(self, k: int) -> GroupedMetric:
        """As the function `recall`."""
        check_k(k)
        inside = np.clip(k - self._ties_before, 0, self._tie_sizes)  # [R], rows of the run that the first k hold
        found = run_sums(self._positives * inside / self._tie_sizes, self._first_tie)  # [G]
        return self._per_request(found, run_sums(self._positives, self._first_tie))

    def mrr(self, k: int | None = None) -> GroupedMetric:
        """As the function `mrr`."""
        check_k(k)
        with_positive = np.flatnonzero(self._positives)
        request_of_run = np.searchsorted(self._first_tie, with_positive, side="right") - 1
        first = np.ones(len(with_positive), bool)
        first[1:] = request_of_run[1:] != request_of_run[:-1]
        requests_with, runs = request_of_run[first], with_positive[first]  # [H], of each request that has a positive
        expected = np.zeros(len(self._starts))
        if len(runs):
            expected[requests_with] = self._expected_reciprocal(runs, k)
        return self._per_request(expected, np.bincount(requests_with, minlength=len(expected)))

    def _expected_reciprocal(self, runs: NDArray[np.intp], k: int | None) -> NDArray[np.float64]:
        size, num_positive = self._tie_sizes[runs], self._positives[runs].astype(np.intp)
        places = size - num_positive + 1  # [H], offsets j at which the first positive may stand
        first = np.cumsum(places) - places
        offset = np.arange(places.sum()) - np.repeat(first, places)  # [sum of places]
        n, m = np.repeat(size, places), np.repeat(num_positive, places)
        log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size.max() + 1)))])
        log_ways = log_factorial[n - 1 - offset] - log_factorial[m - 1] - log_factorial[n - m - offset]
        log_all = log_factorial[n] - log_factorial[m] - log_factorial[n - m]
        rank = np.repeat(self._ties_before[runs], places) + offset + 1
        reciprocal = np.exp(log_ways - log_all) / rank
        if k is not None:
            reciprocal[rank > k] = 0.0
        return run_sums(reciprocal, first)

    def _per_request(self, found: NDArray[Any], possible: NDArray[Any]) -> GroupedMetric:
        values = np.divide(found, possible, out=np.full(len(found), math.nan), where=possible > 0)
        return GroupedMetric(self._requests, values, np.ones(len(values)))


def check_k(k: Any) -> None:
    """Checks a number of ranks.

    Raises:
        InputError: it is neither None nor an integer of at least 1.
    """
    if k is not None and (isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1):
        raise InputError(f"`k` must be an integer of at least 1. Received: {k!r}.")
