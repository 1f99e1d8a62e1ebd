"""Weights of the combined score: what each term does to the order, and the NDCG of many weights at once.

The weights are tuned by hand, "to find a balance of user engagement and satisfaction"
(https://doi.org/10.1145/3298689.3346997, sec. 4.2). What a hand needs to know is here as functions on arrays.

Shapes: N impressions, T objectives of the score, K label columns, W weight vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.combined_score import CombinedScore, Predictions
from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics import group_codes
from mmoe_ranker.metrics.rows import labelled_rows
from mmoe_ranker.metrics.tied_runs import run_sizes, run_starts

Floats = NDArray[np.float64]

_WEIGHTS_AT_ONCE = 64  # innermost axis: long enough for vector instructions, short enough for the cache
_NUMBERS_AT_ONCE = 1 << 16  # half a MiB of keys, for the same reason
_COMPARED_AT_ONCE = 1 << 21  # keys held against one row's, so that memory does not grow with a request's gains


class TermEffect(NamedTuple):
    """What one term does.

    Attributes:
        mean: Mean contribution to the log score (weighted product) or to the score (weighted sum).
        spread: Standard deviation of the contribution within requests; a mean moves no order, a spread does.
        share: Share of the log score's variance within requests that the term brings, by its covariance with the log
            score; the shares of all terms sum to 1, and one that works against the others is negative. NaN where no
            request's scores differ.
    """

    mean: float
    spread: float
    share: float


def term_effects(predictions: Predictions, requests: ArrayLike, score: CombinedScore) -> dict[str, TermEffect]:
    """Mean and spread within requests of each term's contribution.

        c_k = w_k log(max(q_k + offset_k, EPSILON)), or w_k (q_k + offset_k);  d_k = c_k - mean of c_k in its request
        spread_k = sqrt(mean d_k^2);  share_k = sum d_k (sum_l d_l) / sum (sum_l d_l)^2

    Args:
        predictions: As in `CombinedScore.score`.
        requests: [N], numbers or strings.
        score: The score and its weights.

    Returns:
        By objective, in the order of the score.

    Raises:
        InputError: As `CombinedScore.contributions` does.
    """
    contributions = score.contributions(predictions)  # [N, T]
    if not len(contributions):
        return {name: TermEffect(np.nan, np.nan, np.nan) for name in score.objectives}
    _, codes = np.unique(group_codes(requests), return_inverse=True)
    size = np.bincount(codes)
    deviations = np.empty_like(contributions)
    for term, column in enumerate(contributions.T):
        deviations[:, term] = column - (np.bincount(codes, column) / size)[codes]
    total = deviations.sum(axis=1)  # [N], the log score around its request's mean
    moved = float(total @ total)
    return {
        name: TermEffect(
            float(contributions[:, term].mean()),
            float(np.sqrt(np.mean(deviations[:, term] ** 2))),
            float(deviations[:, term] @ total) / moved if moved else np.nan,
        )
        for term, name in enumerate(score.objectives)
    }


def sweep(
    predictions: Predictions,
    labels: Mapping[str, ArrayLike],
    requests: ArrayLike,
    score: CombinedScore,
    weights: ArrayLike,
    k: int | None = None,
) -> Floats:
    """NDCG@k of the combined score against each label, under each weight vector.

    As `metrics.ndcg` of `score.score(predictions, weights[w])`, ties averaged, for all w at once: only the places of
    rows that have a gain are worked out, by comparing them with their request.

    Example:
        >>> score = CombinedScore(("click", "like"), "weighted_product", (1.0, 1.0), (0.0, 0.0), (False, False))
        >>> predictions = {"click": [0.9, 0.2], "like": [0.1, 0.3]}
        >>> labels = {"click": [1, 0], "like": [0, 1]}
        >>> sweep(predictions, labels, ["r", "r"], score, [[1.0, 0.0], [0.0, 1.0]]).round(3).tolist()
        [[1.0, 0.631], [0.631, 1.0]]

    Args:
        predictions: As in `CombinedScore.score`.
        labels: By name, [N], gains of at least 0, NaN where missing.
        requests: [N], numbers (NaN for none) or strings.
        score: The score; its own weights are not used.
        weights: [W, T], each row as `CombinedScore.resolve_weights` takes it.
        k: Ranks that count, or None for all.

    Returns:
        [W, K], in the order of `labels`; NaN in the column of a label without a request that has a positive.

    Raises:
        InputError: on labels and weights out of range, and predictions that are not finite where a weight is not 0.
    """
    matrix = np.stack([score.resolve_weights(row) for row in np.atleast_2d(np.asarray(weights, dtype=float))])
    used = np.any(matrix != 0, axis=0)
    factors = np.where(used, score.contributions(predictions, np.ones(matrix.shape[1])), 0.0)  # [N, T]
    if not np.isfinite(factors).all():
        name = score.objectives[int(np.argwhere(~np.isfinite(factors))[0, 1])]
        raise InputError(f"`predictions` must be finite where their weight is not 0. Received: NaN or inf of {name!r}.")
    result = np.full((len(matrix), len(labels)), np.nan)
    for labelled in _labelled_sets(labels, requests):
        counted = (np.add.reduceat(labelled.gains, labelled.starts, axis=0) > 0).sum(axis=0)  # [K'], requests
        result[:, labelled.columns] = np.where(counted > 0, 0.0, np.nan)
        for rows, gains in _blocks(labelled, k):
            keys = factors[rows]  # [G, L, T]
            for start in range(0, len(matrix), _WEIGHTS_AT_ONCE):
                some = slice(start, start + _WEIGHTS_AT_ONCE)
                result[some, labelled.columns] += _gain_sums(keys, gains, matrix[some], k) / np.maximum(counted, 1)
    return result


def pareto_front(points: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other beats: none is at least as good in every column and better in one.

    Example:
        >>> pareto_front([[1.0, 3.0], [2.0, 2.0], [1.0, 2.0]]).tolist()
        [True, True, False]

    Args:
        points: [W, K], higher is better; a column of NaN does not count.

    Returns:
        [W]; equal points are all on the front, or none of them.
    """
    values = np.asarray(points, dtype=float)
    values = values[:, ~np.isnan(values).any(axis=0)]
    # From the largest sum down (and in equal sums, of rounding, from the largest entry) no later point beats an earlier
    # one: each needs a look at the front so far alone.
    order = np.lexsort((*-values.T[::-1], -values.sum(axis=1)))
    front = np.zeros(len(values), dtype=bool)
    standing = np.empty((0, values.shape[1]))
    for index in order:
        point = values[index]
        beaten = np.all(standing >= point, axis=1) & np.any(standing > point, axis=1)
        if not beaten.any():
            front[index] = True
            standing = np.vstack([standing, point])
    return front


class _LabelledSet(NamedTuple):
    """M impressions of G requests, sorted by request: those that K' of the labels have in common."""

    columns: list[int]  # [K'], of the labels
    rows: NDArray[np.intp]  # [M], indices of the impressions
    starts: NDArray[np.intp]  # [G], first row of each request
    gains: Floats  # [M, K']


def _labelled_sets(labels: Mapping[str, ArrayLike], requests: ArrayLike) -> Iterator[_LabelledSet]:
    codes = group_codes(requests)
    by_rows: dict[bytes, list[int]] = {}
    found = []
    for column, (name, values) in enumerate(labels.items()):
        names = (f"labels of {name}", "predictions", "requests")
        found.append(labelled_rows(values, np.zeros(np.shape(values)), groups=codes, label_kind="gain", names=names))
        kept = found[-1].kept
        by_rows.setdefault(b"all" if kept is None else kept.tobytes(), []).append(column)
    for columns in by_rows.values():
        first = found[columns[0]]
        if len(first):
            assert first.groups is not None
            order = np.argsort(first.groups, kind="stable")
            gains = np.stack([found[column].labels[order] for column in columns], axis=1)
            rows = order if first.kept is None else first.kept[order]
            yield _LabelledSet(columns, rows, run_starts(first.groups[order]), gains)


def _blocks(labelled: _LabelledSet, k: int | None) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """Requests of one length together: rows [G, L], and their gains [G, L, K'] over each request's ideal DCG."""
    sizes = run_sizes(labelled.starts, len(labelled.rows))
    has_gain = np.add.reduceat(labelled.gains.sum(axis=1), labelled.starts) > 0
    for size in np.unique(sizes[has_gain]):
        starts = labelled.starts[has_gain & (sizes == size)]
        at_once = max(1, _NUMBERS_AT_ONCE // (size * _WEIGHTS_AT_ONCE))
        for first in range(0, len(starts), at_once):
            places = starts[first : first + at_once, None] + np.arange(size)  # [G, L]
            gains = labelled.gains[places]
            ideal = np.einsum("glk,l->gk", -np.sort(-gains, axis=1), _discounts(size, k))
            yield labelled.rows[places], gains / np.where(ideal > 0, ideal, np.inf)[:, None, :]


def _gain_sums(factors: Floats, gains: Floats, weights: Floats, k: int | None) -> Floats:
    """Sum of the NDCG of a block's requests: factors [G, L, T], gains [G, L, K'], weights [C, T] to [C, K']."""
    keys = np.zeros((*factors.shape[:2], len(weights)))
    for term in range(factors.shape[2]):  # in turn, as `ranking_key` adds: equal predictions make equal keys
        keys += factors[:, :, term, None] * weights[:, term]
    request, place = np.nonzero(gains.any(axis=2))  # [P], only these rows are looked up
    size = factors.shape[1]
    before = np.concatenate([[0.0], np.cumsum(_discounts(size, k))])  # [L + 1]
    sums = np.zeros((len(weights), gains.shape[2]))
    at_once = max(1, _COMPARED_AT_ONCE // (size * len(weights)))
    for first in range(0, len(request), at_once):
        of, at = request[first : first + at_once], place[first : first + at_once]
        own, others = keys[of, at][:, None, :], keys[of]  # [P, 1, C], [P, L, C]
        above = (others > own).sum(axis=1, dtype=np.int32)
        end = size - (others < own).sum(axis=1, dtype=np.int32)
        discounts = (before[end] - before[above]) / (end - above)  # [P, C], the mean over the places between
        sums += discounts.T @ gains[of, at]
    return sums


def _discounts(size: int, k: int | None) -> Floats:
    discounts = 1.0 / np.log2(2.0 + np.arange(size))
    discounts[size if k is None else k :] = 0.0
    return discounts
