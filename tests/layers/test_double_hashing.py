"""Double hashing: two independent rows a value."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.layers import HashRows


def _rows(buckets: int, count: int) -> np.ndarray:
    return HashRows(buckets, hashes=2)(tf.constant([f"user-{index}" for index in range(count)])).numpy()


def test_shapes_missing_and_the_first_hash_as_ever() -> None:
    values = tf.constant([["a", ""], ["b", "c"]])
    rows = HashRows(50, hashes=2)(values).numpy()
    assert rows.shape == (2, 2, 2)
    assert rows.dtype == np.int32
    assert rows[0, 1].tolist() == [0, 0]
    np.testing.assert_array_equal(rows[..., 0], HashRows(50)(values))
    assert HashRows(50, hashes=2).num_rows == 51


def test_values_that_collide_in_one_hash_differ_in_the_pair() -> None:
    buckets, count = 2000, 4000
    rows = _rows(buckets, count)
    pairs = np.sort(rows, axis=1)
    distinct_once, distinct_pairs = len(np.unique(rows[:, 0])), len(np.unique(pairs, axis=0))
    # One hash leaves 2000 (1 - exp(-2)) = 1729 distinct rows; 4000 values have 8 million pairs of values, of which
    # 2 / 2000^2 each, thus 4 in all, agree in both rows.
    assert distinct_once < 1800
    assert distinct_pairs >= count - 15


@pytest.mark.parametrize("buckets", [7, 16])
def test_both_hashes_are_even_and_independent(buckets: int) -> None:
    count = 200 * buckets**2
    rows = _rows(buckets, count)
    assert rows.min() == 1
    assert rows.max() == buckets
    cells = np.zeros((buckets, buckets))
    np.add.at(cells, (rows[:, 0] - 1, rows[:, 1] - 1), 1)
    # Chi-square of uniform cells: mean b^2 - 1, standard deviation sqrt(2 (b^2 - 1)).
    free = buckets**2 - 1
    chi_square = ((cells - 200) ** 2 / 200).sum()
    assert abs(chi_square - free) < 4 * np.sqrt(2 * free)


def test_rows_stay_the_same_from_version_to_version() -> None:
    # A trained table is worth nothing under another hash.
    rows = HashRows(1_000_000, hashes=2)(tf.constant(["u1", "u2"])).numpy()
    assert rows.tolist() == [[986460, 288025], [360698, 692292]]
