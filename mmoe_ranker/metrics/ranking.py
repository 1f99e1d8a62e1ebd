"""Metrics of the order inside each request: NDCG@k, MRR, recall@k.

Ties are averaged: the value is the expectation over all orders of equal scores, exactly and without a seed. A stable
sort would break them by the order of the rows, which in a log is the order of positions, and a model that scores
everything alike would look as good as the ranker that wrote the log. See "Computing Information Retrieval Performance
Measures Efficiently in the Presence of Tied Scores" by McSherry & Najork
(https://doi.org/10.1007/978-3-540-78646-7_38).

Rows whose label is missing (NaN) leave the list and the others move up. Requests without any positive label are
skipped: they are among `groups_total` and not among `groups_counted`, and their value is NaN. Every request that counts
weighs 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics.grouped import GroupedMetric, group_ids
from mmoe_ranker.metrics.rows import labelled_rows
from mmoe_ranker.metrics.tied_runs import run_sizes, run_starts, run_sums

_NAMES = ("labels", "scores", "requests")


class _Lists(NamedTuple):
    """M labelled rows sorted by request and falling score; G requests; R runs of equal scores inside a request."""

    gains: NDArray[np.float64]  # [M]
    starts: NDArray[np.intp]  # [G], first row of each request
    ties: NDArray[np.intp]  # [R], first row of each run
    tie_sizes: NDArray[np.intp]  # [R]
    first_tie: NDArray[np.intp]  # [G], first run of each request
    ranks: NDArray[np.intp]  # [M], from 0 in each request
    requests: NDArray[Any]  # [G]


def ndcg(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int | None = None) -> GroupedMetric:
    """Normalised discounted cumulative gain of each request; the gain is the label itself.

        DCG@k = sum over ranks r = 1..k of label_r / log2(1 + r);  NDCG@k = DCG@k / the DCG@k of the best order

    Args:
        labels: [N], at least 0 (0 and 1, or graded, such as a watch time), NaN where missing.
        scores: [N], any scale, the best highest.
        requests: [N], numbers (NaN for none) or strings; in any order.
        k: Ranks that count, or None for all.

    Returns:
        Mean over the requests that have a positive label, and each request's value.

    Raises:
        InputError: on shapes that differ, values out of range, k below 1.
    """
    _check_k(k)
    lists = _sorted_lists(labels, scores, requests)
    if lists is None:
        return _nothing(requests)
    discounts = 1.0 / np.log2(2.0 + np.arange(lists.ranks.max() + 1))
    if k is not None:
        discounts[k:] = 0.0
    discount = discounts[lists.ranks]  # [M]
    # Every row of a run expects the run's mean discount, so its gains and its discounts may be summed apart.
    run_dcg = run_sums(lists.gains, lists.ties) * run_sums(discount, lists.ties) / lists.tie_sizes  # [R]
    dcg = run_sums(run_dcg, lists.first_tie)  # [G]
    if np.all((lists.gains == 0) | (lists.gains == 1)):
        positives = run_sums(lists.gains, lists.starts).astype(np.intp)
        ideal = np.concatenate([[0.0], np.cumsum(discounts)])[positives]
    else:
        request = np.repeat(np.arange(len(lists.starts)), run_sizes(lists.starts, len(lists.gains)))
        best_first = np.lexsort((-lists.gains, request))  # requests keep their place, and so do the ranks
        ideal = run_sums(lists.gains[best_first] * discount, lists.starts)
    return _per_request(lists, dcg, ideal)


def recall(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int) -> GroupedMetric:
    """Share of each request's positives that stand among its first k.

    Args:
        labels: [N], at least 0, positive where above 0, NaN where missing.
        scores: [N], any scale, the best highest.
        requests: [N], numbers (NaN for none) or strings; in any order.
        k: Ranks that count.

    Returns:
        Mean over the requests that have a positive label, and each request's value.

    Raises:
        InputError: on shapes that differ, values out of range, k below 1.
    """
    _check_k(k)
    lists = _sorted_lists(labels, scores, requests)
    if lists is None:
        return _nothing(requests)
    positives = run_sums(lists.gains > 0, lists.ties)  # [R]
    inside = np.clip(k - lists.ranks[lists.ties], 0, lists.tie_sizes)  # rows of the run that the first k hold
    found = run_sums(positives * inside / lists.tie_sizes, lists.first_tie)  # [G]
    return _per_request(lists, found, run_sums(positives, lists.first_tie))


def mrr(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int | None = None) -> GroupedMetric:
    """Mean reciprocal rank: 1 over the rank, from 1, of each request's first positive.

    Only the first run of equal scores that has a positive matters. With n rows there, m of them positive, and r rows
    before it, all orders being alike,

        E[1 / rank] = sum over j = 0..n-m of C(n - 1 - j, m - 1) / C(n, m) / (r + j + 1)

    Args:
        labels: [N], at least 0, positive where above 0, NaN where missing.
        scores: [N], any scale, the best highest.
        requests: [N], numbers (NaN for none) or strings; in any order.
        k: A first positive beyond rank k counts 0, or None for no limit.

    Returns:
        Mean over the requests that have a positive label, and each request's value.

    Raises:
        InputError: on shapes that differ, values out of range, k below 1.
    """
    _check_k(k)
    lists = _sorted_lists(labels, scores, requests)
    if lists is None:
        return _nothing(requests)
    positives = run_sums(lists.gains > 0, lists.ties).astype(np.intp)  # [R]
    with_positive = np.flatnonzero(positives)
    request_of_run = np.repeat(np.arange(len(lists.starts)), run_sizes(lists.first_tie, len(lists.ties)))
    requests_with, nth = np.unique(request_of_run[with_positive], return_index=True)
    runs = with_positive[nth]  # [H], of each request that has a positive
    expected = np.zeros(len(lists.starts))
    if len(runs):
        size, num_positive = lists.tie_sizes[runs], positives[runs]
        places = size - num_positive + 1  # [H], offsets j at which the first positive may stand
        first = np.cumsum(places) - places
        offset = np.arange(places.sum()) - np.repeat(first, places)  # [sum of places]
        n, m = np.repeat(size, places), np.repeat(num_positive, places)
        log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size.max() + 1)))])
        log_ways = log_factorial[n - 1 - offset] - log_factorial[m - 1] - log_factorial[n - m - offset]
        log_all = log_factorial[n] - log_factorial[m] - log_factorial[n - m]
        rank = np.repeat(lists.ranks[lists.ties[runs]], places) + offset + 1
        reciprocal = np.exp(log_ways - log_all) / rank
        if k is not None:
            reciprocal[rank > k] = 0.0
        expected[requests_with] = run_sums(reciprocal, first)
    return _per_request(lists, expected, np.bincount(requests_with, minlength=len(expected)))


def _sorted_lists(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike) -> _Lists | None:
    rows = labelled_rows(labels, scores, groups=requests, label_kind="gain", names=_NAMES)
    if not len(rows):
        return None
    assert rows.groups is not None
    falling = -rows.predictions
    order = np.lexsort((falling, rows.groups))
    sorted_requests = rows.groups[order]
    starts = run_starts(sorted_requests)
    ties = run_starts(sorted_requests, falling[order])
    return _Lists(
        gains=rows.labels[order],
        starts=starts,
        ties=ties,
        tie_sizes=run_sizes(ties, len(rows)),
        first_tie=np.searchsorted(ties, starts),
        ranks=np.arange(len(rows)) - np.repeat(starts, run_sizes(starts, len(rows))),
        requests=group_ids(rows, requests, order[starts]),
    )


def _per_request(lists: _Lists, found: NDArray[Any], possible: NDArray[Any]) -> GroupedMetric:
    values = np.divide(found, possible, out=np.full(len(found), math.nan), where=possible > 0)
    return GroupedMetric(lists.requests, values, np.ones(len(values)))


def _nothing(requests: ArrayLike) -> GroupedMetric:
    return GroupedMetric(np.asarray(requests)[:0], np.empty(0), np.empty(0))


def _check_k(k: Any) -> None:
    if k is not None and (isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1):
        raise InputError(f"`k` must be an integer of at least 1. Received: {k!r}.")
