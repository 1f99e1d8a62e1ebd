"""How far the log's order follows what a ranker says that is blind to position."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.metrics import bootstrap_interval, group_codes
from mmoe_ranker.metrics.rows import check_shapes
from mmoe_ranker.metrics.tied_runs import mean_ranks, run_sizes, run_starts, run_sums

_REPLICATES = 200
_SEED = 0


class OrderAgreement(NamedTuple):
    """Spearman's correlation of the order shown with that of the predictions, mean over requests.

    Attributes:
      value: 1 where every list was shown in the order of the predictions, 0 where the two have nothing to do with each
        other; NaN where no request counts.
      low: lower end of the 95 % interval, by a bootstrap over requests.
      high: upper end.
      requests: that count: with two positions or more, and predictions that differ.
    """

    value: float
    low: float
    high: float
    requests: int


def order_agreement(predictions: ArrayLike, positions: ArrayLike, requests: ArrayLike) -> OrderAgreement:
    """How far position follows relevance, as far as a ranker knows it: the confounding of the two.

    Near 1, a model that must tell the effect of a position from what stands there has little to go by: it rests on
    what the rankers disagree about.

    Args:
      predictions: [N], position missing, the best highest.
      positions: [N], integers from 1, 1 the first; below 1 unknown, and left out.
      requests: [N], in any order.

    Raises:
      InputError: shapes differ.
    """
    prediction, position = np.asarray(predictions, dtype=np.float64), np.asarray(positions)
    request = group_codes(requests)
    check_shapes("predictions", prediction, {"positions": position, "requests": request})
    there = position >= 1
    if not there.any():
        return OrderAgreement(np.nan, np.nan, np.nan, 0)
    order = np.argsort(request[there], kind="stable")
    request = request[there][order]
    starts = run_starts(request)
    shown = _deviations_of_ranks(-position[there][order], request, starts)
    predicted = _deviations_of_ranks(prediction[there][order], request, starts)
    together = run_sums(shown * predicted, starts)
    scale = np.sqrt(run_sums(shown**2, starts) * run_sums(predicted**2, starts))
    values = np.divide(together, scale, out=np.full(len(starts), np.nan), where=scale > 0)
    interval = bootstrap_interval(values, _SEED, num_replicates=_REPLICATES)
    return OrderAgreement(*interval, requests=int(np.isfinite(values).sum()))


def _deviations_of_ranks(
    values: NDArray[np.float64], request: NDArray[np.generic], starts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Ranks [N] within each request less their mean, ties sharing theirs; rows sorted by request."""
    lengths = run_sizes(starts, len(values))
    return mean_ranks(np.lexsort((values, request)), request, values) - np.repeat(starts + (lengths - 1) / 2, lengths)
