"""NDCG on logged clicks, each weighed by the inverse of the chance that its position was examined.

A click far down is seen less often than what it stands for. Weighed by 1 / e of its position it counts in full:

    gain_i = click_i min(1 / e_i, clip);   NDCG = sum over requests of DCG / sum over requests of the best order's DCG

The sum above estimates, without bias but for the clipping, what it would be if everything were examined, up to a factor
that the sum below takes: it is the same for all rankers, so it is rankers that this compares; its level is that of the
clicks that were made. Normalised by itself, e need be known only up to a factor. The weights are clipped because one
click at a position that nobody looks at would decide all. See "Unbiased Learning-to-Rank with Biased Feedback" by
Joachims, Swaminathan & Schnabel, WSDM 2017 (https://arxiv.org/abs/1608.04468), and "The Self-Normalized Estimator for
Counterfactual Learning" by Swaminathan & Joachims (NIPS 2015).

It rests on this: clicks follow the position-based model, and e is right. What a list left out is not asked for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics import bootstrap_interval, group_codes, ndcg
from mmoe_ranker.metrics.tied_runs import run_sizes, run_starts, run_sums

CLIP = 20.0
"""The largest weight of a click, relative to one at the position that is examined most."""
_REPLICATES = 200
_SEED = 0


class InversePropensityNdcg(NamedTuple):
    """The estimate, and how much it rests on.

    Attributes:
      value: NDCG, NaN where no click counts.
      low: lower end of the 95 % interval, by a bootstrap over requests.
      high: upper end.
      clicks: that count.
      clicks_without_propensity: left out, since nothing is known of their position.
      clipped: share of the clicks whose weight was clipped.
      effective_clicks: (sum of weights)^2 / sum of squared weights: so many clicks of equal weight would be as sure.
      requests: that have a click that counts.
    """

    value: float
    low: float
    high: float
    clicks: int
    clicks_without_propensity: int
    clipped: float
    effective_clicks: float
    requests: int


class RequestGains(NamedTuple):
    """The sums above, request by request; G requests that have a click.

    Attributes:
      requests: [G], codes, ascending.
      gained: [G], DCG of the order by score.
      possible: [G], DCG of the best order.
    """

    requests: NDArray[np.int64]
    gained: NDArray[np.float64]
    possible: NDArray[np.float64]


def inverse_propensity_ndcg(
    clicks: ArrayLike,
    scores: ArrayLike,
    requests: ArrayLike,
    propensities: ArrayLike,
    k: int | None = None,
    clip: float = CLIP,
) -> InversePropensityNdcg:
    """Estimates what NDCG@k would be if every position were examined alike.

    Args:
      clicks: [N], 0, 1 or NaN where missing.
      scores: [N], position missing; the best highest, ties averaged.
      requests: [N], in any order.
      propensities: [N], chance of being examined up to a factor; NaN where unknown.
      k: ranks that count, or None for all.
      clip: the largest weight, relative to the smallest among these impressions; at least 1.

    Raises:
      InputError: shapes differ, a propensity is not above 0, or `clip` is below 1.
    """
    weights = inverse_weights(propensities, clip)
    clicked = np.asarray(clicks, dtype=np.float64)
    counts = (clicked == 1) & ~np.isnan(weights)
    gains = gains_by_request(clicked, scores, requests, weights, k)
    used = weights[counts]
    if not len(gains.requests):
        nothing = int((clicked == 1).sum())
        return InversePropensityNdcg(math.nan, math.nan, math.nan, 0, nothing, math.nan, 0.0, 0)
    interval = bootstrap_interval(
        gains.gained / gains.possible, _SEED, weights=gains.possible, num_replicates=_REPLICATES
    )
    return InversePropensityNdcg(
        *interval,
        clicks=int(counts.sum()),
        clicks_without_propensity=int(((clicked == 1) & np.isnan(weights)).sum()),
        clipped=float(np.mean(used >= clip)) if clip > 1 else math.nan,
        effective_clicks=float(used.sum() ** 2 / (used**2).sum()),
        requests=len(gains.requests),
    )


def inverse_weights(propensities: ArrayLike, clip: float = CLIP) -> NDArray[np.float64]:
    """Weights [N] of impressions: 1 at the largest propensity, at most `clip`; NaN where the propensity is.

    Raises:
      InputError: `clip` is below 1, or a propensity is not above 0 and finite.
    """
    if not clip >= 1:
        raise InputError(f"`clip` must be at least 1. Received: {clip!r}.")
    given = np.asarray(propensities, dtype=np.float64)
    if np.any(given <= 0) or np.any(np.isinf(given)):
        wrong = given[(given <= 0) | np.isinf(given)][0]
        raise InputError(f"`propensities` must be above 0 and finite, or NaN. Received: {wrong:g}.")
    known = given[~np.isnan(given)]
    return np.minimum(known.max(initial=0.0) / given, clip)


def gains_by_request(
    clicks: ArrayLike, scores: ArrayLike, requests: ArrayLike, weights: ArrayLike, k: int | None = None
) -> RequestGains:
    """DCG@k with the weights of clicks as gains, and that of the best order, of each request that has a click.

    Args:
      clicks: [N], 0, 1 or NaN.
      scores: [N].
      requests: [N].
      weights: [N], of a click; NaN where there is none, and the impression leaves the list.
      k: ranks that count, or None for all.
    """
    clicked, weight = np.asarray(clicks, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    request = group_codes(requests)
    request = np.unique(request, return_inverse=True)[1]
    gain = clicked * weight
    ordered = ndcg(gain, scores, request, k)
    clicked_rows = np.flatnonzero(gain > 0)
    best_first = clicked_rows[np.lexsort((-gain[clicked_rows], request[clicked_rows]))]
    if not len(best_first):
        return RequestGains(np.empty(0, np.int64), np.empty(0), np.empty(0))
    starts = run_starts(request[best_first])
    rank = np.arange(len(best_first)) - np.repeat(starts, run_sizes(starts, len(best_first)))
    discount = np.where(rank < (k or np.inf), 1 / np.log2(2.0 + rank), 0.0)
    possible = run_sums(gain[best_first] * discount, starts)
    values = ordered.values[ordered.counts]
    return RequestGains(request[best_first][starts], values * possible, possible)
