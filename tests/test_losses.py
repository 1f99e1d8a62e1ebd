"""Losses against their formula in float64, against a distribution whose mean is known, and where logits are extreme."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from mmoe_ranker.losses import (
    MAX_LOG_ODDS,
    OddsError,
    WeightedLogistic,
    joint_label,
    joint_logit,
    normalised_weights,
    odds,
)

LOGITS = st.lists(st.floats(-15, 15, width=32), min_size=1, max_size=4)
NONE = tf.keras.losses.Reduction.NONE


def weighted_logistic(target: list[float], logit: list[float]) -> np.ndarray:
    column = tf.constant([[value] for value in logit], tf.float32)
    return WeightedLogistic(NONE)(tf.constant([[value] for value in target], tf.float32), column).numpy()


@given(st.floats(0, 50, width=32), st.floats(-15, 15, width=32))
def test_weighted_logistic_is_its_formula(target, logit):
    expected = (1 + target) * np.log1p(np.exp(logit)) - target * logit
    assert weighted_logistic([target], [logit])[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_odds_of_weighted_logistic_are_the_mean(seed):
    rng = np.random.default_rng(seed)
    # Watch times of which 60 % are 0: far from the rare positives that the paper's approximation needs.
    watch = np.where(rng.random(4000) < 0.6, 0.0, rng.lognormal(3.0, 1.0, 4000))
    scale = 7.0  # any unit does
    target = tf.constant(watch[:, None] / scale, tf.float32)
    logit = tf.Variable(0.0)
    optimizer = tf.keras.optimizers.legacy.SGD(0.5)
    for _ in range(300):
        optimizer.minimize(lambda: tf.reduce_mean(WeightedLogistic(NONE)(target, tf.fill([4000, 1], logit))), [logit])
    assert scale * float(tf.exp(logit)) == pytest.approx(watch.mean(), rel=1e-3)
    # The paper's form: positives of weight y, the others of weight 1.
    assert watch.sum() / (watch == 0).sum() > 1.5 * watch.mean()


def test_weighted_logistic_stays_finite():
    logits = tf.constant([[-1e4], [1e4], [88.0], [-88.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = WeightedLogistic(NONE)(tf.constant([[3.0], [3.0], [0.0], [1e6]]), logits)
    np.testing.assert_allclose(losses, [3e4, 1e4, 88.0, 88e6], rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(losses, logits)[:, 0], [-3.0, 1.0, 1.0, -1e6], rtol=1e-5)
    assert np.isfinite(odds(logits)).all()
    assert odds(logits)[1, 0].numpy() == pytest.approx(np.exp(MAX_LOG_ODDS), rel=1e-5)


def test_odds_error_is_in_mean_labels():
    metric = OddsError()
    metric.update_state(tf.constant([[1.0], [3.0]]), tf.constant([[0.0], [np.log(2.0)]]), tf.constant([[1.0], [3.0]]))
    assert float(metric.result()) == pytest.approx(np.sqrt((1 * 0 + 3 * 1) / 4))


@given(LOGITS)
def test_joint_logit_is_that_of_the_product(logits):
    found = joint_logit([tf.constant([logit], tf.float32) for logit in logits]).numpy()[0]
    values = np.array(logits, np.longdouble)
    product = np.prod(1 / (1 + np.exp(-values)))
    # 1 - product, without the cancellation: the chain fails first at i.
    failure = sum(np.prod(1 / (1 + np.exp(-values[:i]))) / (1 + np.exp(values[i])) for i in range(len(values)))
    assert found == pytest.approx(float(np.log(product) - np.log(failure)), rel=1e-5, abs=1e-5)
    assert 1 / (1 + np.exp(-float(found))) == pytest.approx(float(product), rel=1e-4)


@pytest.mark.parametrize("logits", [(200.0, 200.0), (-200.0, -200.0), (200.0, -200.0), (-200.0, 200.0)])
def test_joint_logit_of_extreme_logits(logits):
    variables = [tf.Variable([logit]) for logit in logits]
    with tf.GradientTape() as tape:
        joint = joint_logit(variables)
        loss = tf.nn.sigmoid_cross_entropy_with_logits([0.5], joint)
    expected = {(200.0, 200.0): 200 - np.log(2), (-200.0, -200.0): -400}.get(logits, -200.0)
    assert float(joint[0]) == pytest.approx(expected, rel=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, variables))


def test_joint_label_is_of_all_of_the_chain():
    nan = float("nan")
    chains = list(itertools.product([0.0, 1.0, nan], repeat=3))
    found = joint_label([tf.constant(column, tf.float32) for column in zip(*chains, strict=True)]).numpy()
    for chain, value in zip(chains, found, strict=True):
        # The first that did not happen, or is not known, decides.
        expected = next((label for label in chain if label != 1.0), 1.0)
        np.testing.assert_equal(float(value), expected)


def test_normalised_weights_have_mean_1():
    np.testing.assert_allclose(normalised_weights(tf.constant([1.0, 3.0])), [0.5, 1.5])
    np.testing.assert_array_equal(normalised_weights(tf.zeros([3])), np.zeros(3))
