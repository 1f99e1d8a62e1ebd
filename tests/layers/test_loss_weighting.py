"""Loss weights: the hand-set sum, and the trained ones at the optimum that the formula has."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.layers import StaticWeights, UncertaintyWeights


def trained(layer: UncertaintyWeights, losses: list[float], labelled: list[float], steps: int = 400) -> np.ndarray:
    optimizer = tf.keras.optimizers.legacy.Adam(0.1)
    for _ in range(steps):
        optimizer.minimize(lambda: layer(tf.constant(losses), tf.constant(labelled)), layer.trainable_variables)
    return layer.log_variance.numpy()


def test_static_weights_are_a_weighted_sum():
    layer = StaticWeights([1.0, 0.5, 0.0])
    assert float(layer(tf.constant([2.0, 3.0, 7.0]), tf.ones(3))) == 3.5
    assert StaticWeights.from_config(layer.get_config()).loss_weights == [1.0, 0.5, 0.0]


def test_the_formula_by_hand():
    layer = UncertaintyWeights(["watch", "click"], [2.0, 1.0], [0.5, 1.0])
    layer.log_variance.assign([0.3, -0.2])
    expected = np.exp(-0.3) * 0.5 * 2.0 * 4.0 + 0.25 * 0.3 / 2 + np.exp(0.2) * 0.6 + 1.0 * -0.2 / 2
    assert float(layer(tf.constant([4.0, 0.6]), tf.constant([0.25, 1.0]))) == pytest.approx(expected, rel=1e-6)
    assert [metric.name for metric in layer.metrics] == ["watch_log_variance", "click_log_variance"]
    assert [float(metric.result()) for metric in layer.metrics] == pytest.approx([0.3, -0.2])
    assert UncertaintyWeights.from_config(layer.get_config()).get_config() == layer.get_config()


def test_converges_to_the_optimum():
    losses, labelled, weights, scales = [4.0, 0.6, 0.01], [0.25, 1.0, 0.5], [1.0, 2.0, 1.0], [0.5, 1.0, 1.0]
    found = trained(UncertaintyWeights(["a", "b", "c"], weights, scales), losses, labelled)
    # exp(s) = 2 c w L / n; for the Gaussian a, the variance: the mean squared error of what is labelled.
    expected = np.log([16.0, 2.4, 0.04])
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_the_variance_of_two_noisy_regressions_is_found():
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(5000, 2)) * [0.5, 3.0]
    there = rng.random((5000, 2)) < [1.0, 0.1]
    losses = [float(np.square(noise[:, k][there[:, k]]).sum() / 5000) for k in range(2)]
    found = trained(UncertaintyWeights(["a", "b"], [1.0, 1.0], [0.5, 0.5]), losses, there.mean(axis=0).tolist())
    # However rare its labels are. 4 standard errors of a variance from 500 labels are a quarter of it.
    np.testing.assert_allclose(np.exp(found), [0.25, 9.0], rtol=0.25)


def test_what_has_no_label_or_no_weight_does_not_move():
    found = trained(UncertaintyWeights(["a", "b"], [1.0, 0.0], [1.0, 1.0]), [0.0, 5.0], [0.0, 1.0], steps=5)
    np.testing.assert_array_equal(found, [0.0, 0.0])


def test_an_exact_fit_does_not_drive_the_weight_off():
    found = trained(UncertaintyWeights(["a"], [1.0], [1.0]), [0.0], [1.0])
    np.testing.assert_array_equal(found, [-10.0])
