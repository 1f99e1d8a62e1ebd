"""Rate of an event at each position, with an interval that knows that requests are the unit of chance (fig. 6)."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics import group_codes
from mmoe_ranker.metrics.rows import check_shapes

LEVEL = 0.95
"""Of every interval in this package."""
_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)


class PositionRates(NamedTuple):
    """A row a position and group, C of them, ascending by group, then position.

    Attributes:
      groups: [C], as given (0 where none were).
      positions: [C].
      impressions: [C], labelled ones.
      rates: [C], mean label.
      low: [C], lower end of the 95 % interval.
      high: [C], upper end.
    """

    groups: NDArray[Any]
    positions: NDArray[np.int64]
    impressions: NDArray[np.int64]
    rates: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def rates_by_position(
    labels: ArrayLike, positions: ArrayLike, requests: ArrayLike, groups: ArrayLike | None = None
) -> PositionRates:
    """The rate at each position, of each group; Wilson's interval on the number of impressions that requests leave.

        n_effective = n * min(1, n rate (1 - rate) / sum over requests q of (sum of labels_q - rate n_q)^2)

    With one impression a request and position, as in a list, that is n. See "Probable Inference, the Law of
    Succession, and Statistical Inference" by Wilson (https://doi.org/10.1080/01621459.1927.10502953), and "Survey
    Sampling" by Kish (1965) for the design effect.

    Args:
      labels: [N], 0, 1 or NaN where missing.
      positions: [N], integers from 1; below 1 unknown, and left out.
      requests: [N], in any order.
      groups: [N], such as devices, or None for one group.

    Raises:
      InputError: shapes differ, or a label is not 0, 1 or NaN.
    """
    label, position = np.asarray(labels, dtype=np.float64), np.asarray(positions)
    group_of = np.zeros(len(label), np.int64) if groups is None else np.asarray(groups)
    request = group_codes(requests)
    check_shapes("labels", label, {"positions": position, "requests": request, "groups": group_of})
    there = ~np.isnan(label) & (position >= 1)
    if not np.isin(label[there], (0.0, 1.0)).all():
        wrong = label[there][~np.isin(label[there], (0.0, 1.0))][0]
        raise InputError(f"`labels` must be 0, 1 or NaN. Received: {wrong:g}.")
    label, position = label[there], position[there].astype(np.int64)
    names, group = np.unique(group_of[there], return_inverse=True)
    width = int(position.max(initial=0)) + 1
    cells, cell = np.unique(group * width + position, return_inverse=True)
    impressions = np.bincount(cell, minlength=len(cells))
    rates = np.bincount(cell, weights=label, minlength=len(cells)) / np.maximum(impressions, 1)
    # What the impressions of one request at one place add up to, beyond the rate.
    _, request = np.unique(request[there], return_inverse=True)
    clusters, cluster = np.unique(cell * (int(request.max(initial=0)) + 1) + request, return_inverse=True)
    excess = np.bincount(cluster, weights=label - rates[cell], minlength=len(clusters))
    cell_of_cluster = clusters // (int(request.max(initial=0)) + 1)
    clustered = np.bincount(cell_of_cluster, weights=excess**2, minlength=len(cells))
    alone = impressions * rates * (1 - rates)
    # Requests that cancel out by chance make nothing surer than independent impressions would.
    independent = np.divide(alone, clustered, out=np.ones(len(cells)), where=clustered > alone)
    low, high = wilson_interval(rates, impressions * independent)
    return PositionRates(names[cells // width], cells % width, impressions, rates, low, high)


def wilson_interval(
    rates: NDArray[np.float64], trials: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's 95 % interval of rates [C] seen in so many independent trials [C]."""
    square = _QUANTILE**2
    centre = (rates + square / (2 * trials)) / (1 + square / trials)
    half = _QUANTILE * np.sqrt(rates * (1 - rates) / trials + square / (4 * trials**2)) / (1 + square / trials)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
