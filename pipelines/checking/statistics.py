"""Figures from counts: quantiles, skewness, drift, how well one feature alone tells a label. Pure functions on arrays.

K keys (values of a feature, or groups of values), each with its counts; halves are two random halves of the requests.
"""

from __future__ import annotations

import math

import numpy as np

from mmoe_ranker.metrics import auc

PRIOR = 10.0
"""Labelled impressions at the mean rate that are added to each value's own: a rate of one impression says nothing."""
BINS = 32
"""Bins of equal counts that a number is cut into to see whether it tells a label other than by its order."""
DRIFT_BINS = 10
"""Bins of equal counts of a number, for drift: what the customary thresholds of the index are for."""
TOP = 20
"""Categories that are counted one by one, for drift; the others count together."""


def quantiles(values: np.ndarray, counts: np.ndarray, shares: list[float]) -> list[float]:
    """The least values [S] at or below which at least these shares of the counts lie; values [K] ascend."""
    cumulative = np.cumsum(counts)
    places = np.searchsorted(cumulative, np.array(shares) * cumulative[-1], side="left")
    return [float(values[min(place, len(values) - 1)]) for place in places]


def skewness(values: np.ndarray, counts: np.ndarray) -> float | None:
    """Third standardised moment, `E (x - mean)^3 / std^3`; None where nothing varies."""
    mean = np.average(values, weights=counts)
    std = math.sqrt(np.average(np.square(values - mean), weights=counts))
    if not std > 0:
        return None
    return float(np.average(((values - mean) / std) ** 3, weights=counts))


def tail_share(values: np.ndarray, counts: np.ndarray, top: float) -> float | None:
    """What share of the sum of squared distances from the mean the share `top` of the values farthest from it has."""
    squares = np.square(values - np.average(values, weights=counts))
    total = float(np.sum(squares * counts))
    if not total > 0:
        return None
    order = np.argsort(-squares, kind="stable")
    left = top * counts.sum() - (np.cumsum(counts[order]) - counts[order])
    return float(np.sum(squares[order] * np.clip(left, 0, counts[order])) / total)


def bin_codes(counts: np.ndarray, bins: int) -> np.ndarray:
    """The bin [K] of each key in ascending order, `bins` of about equal counts; keys that do not count go along."""
    total = counts.sum()
    if not total:
        return np.zeros(len(counts), np.int64)
    before = np.cumsum(counts) - counts
    return np.minimum((before + counts / 2) * bins / total, bins - 1).astype(np.int64)


def drift(expected: np.ndarray, actual: np.ndarray) -> float | None:
    """Population stability index, `sum_b (a_b - e_b) ln(a_b / e_b)` of shares a, e, half a count added to each bin.

    Args:
      expected: counts by bin [B].
      actual: likewise.

    Returns:
      0 where both are alike; None where one has nothing.
    """
    if not expected.sum() or not actual.sum():
        return None
    e, a = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (expected, actual))
    return float(np.sum((a - e) * np.log(a / e)))


def drift_by_chance(bins: int, expected: int, actual: int) -> float:
    """What the index is on average where nothing drifts: `(B - 1) (1 / n + 1 / m)`, of n and m independent draws."""
    return (bins - 1) * (1 / max(expected, 1) + 1 / max(actual, 1))


def out_of_fold_auc(labelled: np.ndarray, positives: np.ndarray) -> float | None:
    """AUC with which the rates by value on one half of the requests order the other half, mean of both ways.

    A value's score is `(positives + PRIOR rate) / (labelled + PRIOR)`, so that a value which the other half lacks has
    the mean rate: identifiers that never come again tell nothing, however many they are.

    Args:
      labelled: [K, 2] by value and half.
      positives: [K, 2].

    Returns:
      The area; None where a half has no positive or no negative.
    """
    areas = []
    for half, other in ((0, 1), (1, 0)):
        total = labelled[:, other].sum()
        rate = positives[:, other].sum() / total if total else 0.0
        scores = (positives[:, other] + PRIOR * rate) / (labelled[:, other] + PRIOR)
        areas.append(weighted_auc(scores, labelled[:, half], positives[:, half]))
    return None if None in areas else float(np.mean(areas))  # type: ignore[arg-type]


def weighted_auc(scores: np.ndarray, labelled: np.ndarray, positives: np.ndarray) -> float | None:
    """AUC of scores [K] over impressions that are counted by score, labelled [K] and positives [K]."""
    labels = np.repeat([1.0, 0.0], len(scores))
    weights = np.concatenate([positives, labelled - positives]).astype(np.float64)
    area = auc(labels[weights > 0], np.tile(scores, 2)[weights > 0], weights[weights > 0])
    return None if math.isnan(area) else area


def out_of_fold_explained(labelled: np.ndarray, sums: np.ndarray, totals: np.ndarray) -> float | None:
    """Share of a label's variance that its mean by value on one half explains in the other: R^2, mean of both ways.

    Args:
      labelled: [K, 2] by value and half.
      sums: [K, 2] of labels.
      totals: [2, 3] by half: labelled impressions, sum and sum of squares of labels.

    Returns:
      1 where nothing is left to explain, below 0 where the means say less than the one mean; None where nothing varies.
    """
    shares = []
    for half, other in ((0, 1), (1, 0)):
        count, total, squares = totals[half]
        if not count or not totals[other][0]:
            return None
        variance = squares - total**2 / count
        if not variance > 1e-9 * max(squares, 1.0):
            return None
        mean = totals[other][1] / totals[other][0]
        predicted = (sums[:, other] + PRIOR * mean) / (labelled[:, other] + PRIOR)
        left = squares + np.sum(labelled[:, half] * predicted**2 - 2 * predicted * sums[:, half])
        shares.append(1.0 - left / variance)
    return float(np.mean(shares))


def shared_rows(distinct: int, buckets: int, hashes: int) -> float:
    """The expected share of values that have no embedding of their own in a hashed table.

    With one hash a value shares its bucket with one of the n - 1 others with probability `1 - (1 - 1/B)^(n - 1)`; with
    two, both of its rows with both of another with probability `1 - (1 - 2/B^2)^(n - 1)`.
    """
    clash = 1.0 / buckets if hashes == 1 else min(2.0 / buckets**2, 1.0)
    return -math.expm1((distinct - 1) * math.log1p(-clash)) if clash < 1 else float(distinct > 1)
