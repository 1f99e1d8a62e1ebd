"""Out-of-vocabulary dropout: what it may touch, how much, and that its state is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.layers import OovDropout


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("buckets", [1, 4])
def test_a_share_of_known_rows_goes_to_their_bucket(seed: int, buckets: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 50, size=(2000, 10)).astype(np.int32)
    result = OovDropout(0.2, buckets, seed)(tf.constant(rows), training=True).numpy()
    assert result.dtype == np.int32
    known, changed = rows > buckets, result != rows
    assert not changed[~known].any(), "missing and out-of-vocabulary rows must stay"
    # Some 18,000 draws: four standard errors are 0.012.
    assert abs(changed[known].mean() - 0.2) < 0.012
    np.testing.assert_array_equal(result[changed], 1 + rows[changed] % buckets)
    assert set(result[changed]) == set(range(1, buckets + 1))
    # Each place by itself: places of one row of the batch are dropped independently.
    pairs = changed[:, 0] & changed[:, 1] & known[:, 0] & known[:, 1]
    both = (known[:, 0] & known[:, 1]).sum()
    assert abs(pairs.sum() / both - 0.04) < 0.025


def test_identity_when_not_training() -> None:
    rows = tf.range(100)
    layer = OovDropout(0.9, 2)
    np.testing.assert_array_equal(layer(rows), rows)
    np.testing.assert_array_equal(layer(rows, training=False), rows)


def test_draws_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    rows = tf.fill([200], 9)
    layer = OovDropout(0.5, 2, seed=1)
    first = layer(rows, training=True).numpy()
    path = tf.train.Checkpoint(layer=layer).save(str(tmp_path / "checkpoint"))
    expected = layer(rows, training=True).numpy()
    other = OovDropout(0.5, 2, seed=77)
    tf.train.Checkpoint(layer=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(rows, training=True), expected)
    assert (first != expected).any()


def test_rebuilt_from_its_config() -> None:
    layer = OovDropout(0.3, 4, seed=2)
    assert OovDropout.from_config(layer.get_config()).get_config() == layer.get_config()
