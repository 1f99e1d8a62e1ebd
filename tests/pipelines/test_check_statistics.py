"""The figures of `check`, against other libraries and slow doubles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from pipelines.checking.statistics import (
    PRIOR,
    bin_codes,
    drift,
    drift_by_chance,
    out_of_fold_auc,
    out_of_fold_explained,
    quantiles,
    shared_rows,
    skewness,
    tail_share,
)

RNG = np.random.default_rng(2)


def test_quantiles_and_skewness_of_counts_are_those_of_the_rows():
    values, counts = np.sort(RNG.normal(size=30)), RNG.integers(1, 9, 30)
    rows = np.repeat(values, counts)
    shares = [0.0, 0.01, 0.3, 0.5, 1.0]
    assert quantiles(values, counts, shares) == np.quantile(rows, shares, method="inverted_cdf").tolist()
    assert skewness(values, counts) == pytest.approx(stats.skew(rows))
    assert skewness(np.array([3.0]), np.array([5])) is None


def test_tail_share_takes_the_farthest_first():
    rows = RNG.exponential(size=1000)
    squares = np.sort(np.square(rows - rows.mean()))[::-1]
    assert tail_share(np.sort(rows), np.ones(1000), 0.01) == pytest.approx(squares[:10].sum() / squares.sum())
    # A key of many rows gives only as many as the share takes: half a row of two.
    assert tail_share(np.array([0.0, 1.0]), np.array([998, 2]), 0.001) == pytest.approx(
        (1 - 0.002) ** 2 / (2 * (1 - 0.002) ** 2 + 998 * 0.002**2)
    )
    assert tail_share(np.array([3.0]), np.array([5]), 0.001) is None


def test_bins_are_of_about_equal_counts():
    counts = RNG.integers(1, 5, 1000)
    codes = bin_codes(counts, 10)
    assert (np.diff(codes) >= 0).all()
    np.testing.assert_allclose(np.bincount(codes, weights=counts), counts.sum() / 10, atol=4)
    assert bin_codes(np.array([1000, 1]), 10).tolist() == [4, 9]


def test_drift_is_the_index_by_hand_and_by_chance_as_large_as_said():
    # Shares 4/8 and 4/8 against 2/8 and 6/8, with half a count each.
    e, a = np.array([3.5, 3.5]), np.array([1.5, 5.5])
    by_hand = sum((y / 7 - x / 7) * np.log(y / x) for x, y in zip(e, a, strict=True))
    assert drift(np.array([3, 3]), np.array([1, 5])) == pytest.approx(by_hand)
    assert drift(np.array([3, 3]), np.array([0, 0])) is None
    shares = np.full(10, 0.1)
    drawn = [drift(RNG.multinomial(4000, shares), RNG.multinomial(500, shares)) for _ in range(500)]
    assert np.mean(drawn) == pytest.approx(drift_by_chance(10, 4000, 500), rel=0.1)


def _rows(num_rows: int, num_values: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, half = RNG.integers(num_values, size=num_rows), RNG.integers(2, size=num_rows)
    return value, half, value / num_values + RNG.normal(scale=0.4, size=num_rows)


def _table(value: np.ndarray, half: np.ndarray, label: np.ndarray, num_values: int) -> tuple[np.ndarray, np.ndarray]:
    counts, sums = np.zeros((num_values, 2)), np.zeros((num_values, 2))
    np.add.at(counts, (value, half), 1)
    np.add.at(sums, (value, half), label)
    return counts, sums


def test_out_of_fold_figures_are_those_of_the_rows():
    value, half, label = _rows(2000, 20)
    areas, shares = [], []
    for one, other in ((0, 1), (1, 0)):
        for binary, into in ((True, areas), (False, shares)):
            y = (label > 0.5).astype(float) if binary else label
            mean = y[half == other].mean()
            learned = {
                v: (y[(half == other) & (value == v)].sum() + PRIOR * mean)
                / (((half == other) & (value == v)).sum() + PRIOR)
                for v in range(20)
            }
            score, truth = np.array([learned[v] for v in value[half == one]]), y[half == one]
            left = np.square(truth - score).sum() / np.square(truth - truth.mean()).sum()
            into.append(roc_auc_score(truth, score) if binary else 1 - left)
    counts, sums = _table(value, half, (label > 0.5).astype(float), 20)
    assert out_of_fold_auc(counts, sums) == pytest.approx(np.mean(areas))
    counts, sums = _table(value, half, label, 20)
    totals = np.array([[one.size, one.sum(), np.square(one).sum()] for one in (label[half == h] for h in (0, 1))])
    assert out_of_fold_explained(counts, sums, totals) == pytest.approx(np.mean(shares))


def test_identifiers_tell_nothing_out_of_fold_however_many():
    """In the rows that they were counted on, values that occur once order labels perfectly."""
    value, half = np.arange(3000), RNG.integers(2, size=3000)
    label = (RNG.random(3000) < 0.2).astype(float)
    counts, sums = _table(value, half, label, 3000)
    assert roc_auc_score(label, sums.sum(axis=1)) == 1.0
    assert out_of_fold_auc(counts, sums) == 0.5
    assert out_of_fold_auc(counts, np.zeros_like(sums)) is None


@pytest.mark.parametrize("hashes", [1, 2])
def test_shared_rows_are_what_hashing_gives(hashes: int):
    buckets = 300 if hashes == 1 else 12
    shares = []
    for _ in range(200):
        rows = np.sort(RNG.integers(buckets, size=(200, hashes)), axis=1)
        _, place, many = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        shares.append(np.mean(many[place.ravel()] > 1))
    assert shared_rows(200, buckets, hashes) == pytest.approx(np.mean(shares), rel=0.06)
    assert shared_rows(1, buckets, hashes) == 0.0
