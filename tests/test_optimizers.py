"""Adagrad on rows against its formula and against Keras' own, and what it keeps in memory."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.optimizers import RowAdagrad


@pytest.mark.parametrize("seed", range(3))
def test_row_adagrad_is_adagrad_with_repeated_rows_summed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(20, 3)).astype(np.float32)
    ours, keras = tf.Variable(start), tf.Variable(start)
    optimizers = RowAdagrad(0.3), tf.keras.optimizers.legacy.Adagrad(0.3)
    table, accumulated = start.astype(np.float64), np.full((20, 3), 0.1)
    for _ in range(5):
        rows = rng.integers(0, 10, size=8)  # with repeats; rows 10 to 19 never
        values = rng.normal(size=(8, 3)).astype(np.float32)
        for optimizer, variable in zip(optimizers, (ours, keras), strict=True):
            optimizer.apply_gradients([(tf.IndexedSlices(tf.constant(values), tf.constant(rows)), variable)])
        gradient = np.zeros((20, 3))
        np.add.at(gradient, rows, values)
        accumulated += gradient**2
        table -= 0.3 * gradient / (np.sqrt(accumulated) + 1e-7)
    np.testing.assert_allclose(ours, table, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours, keras, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(ours[10:], start[10:])


def test_a_table_costs_one_slot() -> None:
    table, optimizer = tf.Variable(tf.zeros([50, 4])), RowAdagrad(0.1)
    optimizer.apply_gradients([(tf.IndexedSlices(tf.ones([1, 4]), tf.constant([3])), table)])
    assert [tuple(variable.shape) for variable in optimizer.variables()] == [(), (50, 4)]
