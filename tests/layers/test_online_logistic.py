"""Online logistic regression against batch Newton, and a step of it by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.layers import OnlineLogistic


def batch_newton(
    design: np.ndarray, label: np.ndarray, weight: np.ndarray, mean: np.ndarray, precision: np.ndarray
) -> np.ndarray:
    """The maximum of the weighted likelihood times the prior."""
    theta = mean.copy()
    for _ in range(30):
        prob = 1.0 / (1.0 + np.exp(-design @ theta))
        gradient = design.T @ (weight * (label - prob)) - precision * (theta - mean)
        hessian = (design * (weight * prob * (1.0 - prob))[:, np.newaxis]).T @ design + np.diag(precision)
        theta += np.linalg.solve(hessian, gradient)
    return theta


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_batch_logistic_regression_on_what_does_not_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, size = 20_000, 200
    mean, precision = np.array([0.0, 1.0, 0.0]), np.array([1.0, 10.0, 10.0])
    design = np.stack([np.ones(count), rng.normal(size=count), rng.normal(size=count) * 0.4], axis=1)
    truth = np.array([-1.0, 0.7, 0.6])
    label = (rng.random(count) < 1.0 / (1.0 + np.exp(-design @ truth))).astype(float)
    weight = rng.choice([0.0, 0.5, 1.5], count)
    layer = OnlineLogistic(1, mean, precision)
    for start in range(0, count, size):
        part = slice(start, start + size)
        layer.learn(
            *(tf.constant(values, tf.float32) for values in (design[part, np.newaxis], label[part, np.newaxis])),
            tf.constant(weight[part, np.newaxis], tf.float32),
        )
    # An impression counts by when it came, which is all that differs from one regression over them.
    seen = np.cumsum((weight > 0).reshape(-1, size).sum(axis=1)) / (weight > 0).sum()
    expected = batch_newton(design, label, weight * np.repeat(seen, size), mean, precision)
    np.testing.assert_allclose(layer.coefficients[0], expected, atol=0.01)
    np.testing.assert_allclose(expected, truth, atol=0.2)


def test_two_regressions_step_by_step_by_hand() -> None:
    rng = np.random.default_rng(0)
    layer = OnlineLogistic(2, [0.5, 0.0], [2.0, 3.0], recency=2.0)
    theta, information, response = np.tile([0.5, 0.0], (2, 1)), np.zeros((2, 2, 2)), np.zeros((2, 2))
    # The last batch comes after so many that a million are remembered.
    for seen, keep in ((0, 0.0), (6, 0.0), (30, 1.0 - 2 * 6 / 36), (9_999_994, 1.0 - 6 / 1_000_000)):
        layer.seen.assign([seen, seen])
        design, offset = rng.normal(size=(6, 2, 2)), rng.normal(size=(6, 2))
        label = rng.integers(0, 2, (6, 2)).astype(float)
        layer.learn(*(tf.constant(values, tf.float32) for values in (design, label, np.ones((6, 2)), offset)))
        for each in range(2):
            x = design[:, each]
            prob = 1.0 / (1.0 + np.exp(-(offset[:, each] + x @ theta[each])))
            hessian = x.T @ np.diag(prob * (1.0 - prob)) @ x
            information[each] = keep * information[each] + hessian
            response[each] = keep * response[each] + hessian @ theta[each] + x.T @ (label[:, each] - prob)
            theta[each] = np.linalg.solve(information[each] + np.diag([2.0, 3.0]), response[each] + [1.0, 0.0])
        np.testing.assert_allclose(layer.coefficients, theta, rtol=1e-4, atol=1e-5)


def test_without_impressions_nothing_moves() -> None:
    layer = OnlineLogistic(1, [0.0, 1.0], [1.0, 10.0])
    layer.learn(tf.ones([4, 1, 2]), tf.ones([4, 1]), tf.zeros([4, 1]))
    np.testing.assert_allclose(layer.coefficients, [[0.0, 1.0]], atol=1e-6)
    assert not layer.trainable_variables
