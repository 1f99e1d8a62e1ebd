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

import numpy as np
from numpy.typing import ArrayLike

from mmoe_ranker.metrics.grouped import GroupedMetric
from mmoe_ranker.metrics.ranked_lists import RankedLists, check_k
from mmoe_ranker.metrics.rows import labelled_rows
from mmoe_ranker.metrics.sorted_rows import SortedRows

_NAMES = ("labels", "scores", "requests")


def ndcg(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int | None = None) -> GroupedMetric:
    """Normalised discounted cumulative gain of each request; the gain is the label itself.

        DCG@k = sum over ranks r = 1..k of label_r / log2(1 + r);  NDCG@k = DCG@k / the DCG@k of the best order

    Example:
        >>> round(ndcg([0, 1, 1], [0.9, 0.8, 0.1], ["r", "r", "r"], k=2).value, 4)
        0.3869

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
    check_k(k)
    lists = _lists(labels, scores, requests)
    return lists.ndcg(k) if lists else _nothing(requests)


def recall(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int) -> GroupedMetric:
    """Share of each request's positives that stand among its first k.

    Example:
        >>> recall([0, 1, 1], [0.9, 0.8, 0.1], ["r", "r", "r"], k=2).value
        0.5

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
    check_k(k)
    lists = _lists(labels, scores, requests)
    return lists.recall(k) if lists else _nothing(requests)


def mrr(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int | None = None) -> GroupedMetric:
    """Mean reciprocal rank: 1 over the rank, from 1, of each request's first positive.

    Only the first run of equal scores that has a positive matters. With n rows there, m of them positive, and r rows
    before it, all orders being alike,

        E[1 / rank] = sum over j = 0..n-m of C(n - 1 - j, m - 1) / C(n, m) / (r + j + 1)

    Example:
        >>> mrr([0, 1, 1], [0.9, 0.8, 0.1], ["r", "r", "r"]).value
        0.5

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
    check_k(k)
    lists = _lists(labels, scores, requests)
    return lists.mrr(k) if lists else _nothing(requests)


def _lists(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike) -> RankedLists | None:
    rows = labelled_rows(labels, scores, groups=requests, label_kind="gain", names=_NAMES)
    return RankedLists(SortedRows.best_first(rows).within(requests), requests) if len(rows) else None


def _nothing(requests: ArrayLike) -> GroupedMetric:
    return GroupedMetric(np.asarray(requests)[:0], np.empty(0), np.empty(0))
