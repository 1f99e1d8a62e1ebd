"""Heads of objectives: what their losses are, where gradients go, what they predict, what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.layers import UncertaintyWeights
from mmoe_ranker.objective_heads import EntireSpaceHead, WeightedLogisticHead
from mmoe_ranker.objectives import loss_weighting, objective_heads
from mmoe_ranker.statistics import LabelStatistics, Statistics
from tests.configs import small_config

NAN = float("nan")


def changed(sampling: dict[str, Any] | None = None, **objectives: dict[str, Any]) -> Config:
    raw = small_config() | {"sampling": sampling}
    for objective in raw["objectives"]:
        objective.update(objectives.get(objective["name"], {}))
    return parse_config(raw)


def statistics(**labels: LabelStatistics) -> Statistics:
    plain = {name: LabelStatistics(1000, 0.2, 0.4, 0.0) for name in ("click", "watch_time", "like", "dismiss")}
    return Statistics(1000, {}, plain | labels, {})


def sigmoid(logit: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(logit, float)))


def tensors(**columns: list[float]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(values, tf.float32) for name, values in columns.items()}


def chain() -> Config:
    """dismiss given like given click, all over the entire space."""
    return changed(like={"given": "click", "space": "entire"}, dismiss={"given": "like", "space": "entire"})


def test_huber_is_squared_within_a_standard_deviation_and_linear_beyond():
    label = LabelStatistics(100, mean=3.0, std=2.0, least=0.0)
    head = objective_heads(changed(watch_time={"loss": "huber"}), statistics(watch_time=label))["watch_time"]
    labels, outputs = tensors(watch_time=[np.expm1(3.0), np.expm1(9.0), NAN]), tensors(watch_time_logit=[0.5, 0.0, 7.0])
    # Differences in standard deviations: .5 and 3; the third has no label.
    found = head.loss(labels, outputs)
    assert float(found.loss) == pytest.approx((0.5 * 0.5**2 + 3 - 0.5) / 3, rel=1e-5)
    assert float(found.labelled) == pytest.approx(2 / 3)
    assert float(head.prediction(tf.constant([0.5]))[0]) == pytest.approx(np.expm1(4.0), rel=1e-5)


def test_weighted_logistic_learns_the_mean_of_each_group():
    rng = np.random.default_rng(3)
    group = rng.integers(0, 3, 6000)
    watch = rng.gamma(0.7, np.array([5.0, 40.0, 300.0])[group]) * (rng.random(6000) < 0.5)
    label = LabelStatistics(6000, float(watch.mean()), float(watch.std()), 0.0)
    config = changed(watch_time={"loss": "weighted_logistic", "transform": "none"})
    head = objective_heads(config, statistics(watch_time=label))["watch_time"]
    assert isinstance(head, WeightedLogisticHead)
    logit = tf.Variable(tf.zeros([3]))
    assert float(head.prediction(logit)[0]) == pytest.approx(watch.mean(), rel=1e-5)
    optimizer, labels = tf.keras.optimizers.legacy.Adam(0.1), tensors(watch_time=watch)

    @tf.function
    def step() -> None:
        optimizer.minimize(lambda: head.loss(labels, {"watch_time_logit": tf.gather(logit, group)}).loss, [logit])

    for _ in range(300):
        step()
    expected = [watch[group == one].mean() for one in range(3)]
    np.testing.assert_allclose(head.prediction(logit), expected, rtol=1e-3)
    assert np.isfinite(head.prediction(tf.constant([1e6, -1e6]))).all()
    assert {metric.name for metric in head.metrics} >= {"watch_time_loss", "watch_time_relative_rmse"}


@pytest.mark.parametrize("least", [-1.0, None])
def test_weighted_logistic_refuses_negative_labels(least):
    config = changed(watch_time={"loss": "weighted_logistic", "transform": "none"})
    with pytest.raises(InputError, match=rf"`watch_time` must be at least 0, .* Received: a least label of {least}\.$"):
        objective_heads(config, statistics(watch_time=LabelStatistics(10, 1.0, 1.0, least)))


def test_entire_space_is_the_product_over_all_impressions():
    heads = objective_heads(chain(), statistics())
    assert isinstance(heads["dismiss"], EntireSpaceHead)
    rng = np.random.default_rng(0)
    logits = {name: rng.normal(size=50) for name in ("click", "like", "dismiss")}
    click = (rng.random(50) < 0.6).astype(float)
    like = np.where(click == 1, rng.random(50) < 0.6, NAN)
    dismiss = np.where(like == 1, rng.random(50) < 0.5, NAN)
    outputs = tensors(**{f"{name}_logit": values for name, values in logits.items()})
    labels = tensors(click=click, like=like, dismiss=dismiss)
    product = np.ones(50)
    for name, happened in (("click", click == 1), ("like", like == 1), ("dismiss", dismiss == 1)):
        product = product * sigmoid(logits[name])
        found = heads[name].loss(labels, outputs)
        expected = -np.mean(np.where(happened, np.log(product), np.log(1 - product)))
        assert float(found.loss) == pytest.approx(expected, rel=1e-5)
        assert float(found.labelled) == 1.0
    np.testing.assert_allclose(heads["like"].prediction(outputs["like_logit"]), sigmoid(logits["like"]), rtol=1e-5)


def test_an_unknown_parent_leaves_the_label_unknown():
    head = objective_heads(chain(), statistics())["like"]
    labels, outputs = tensors(click=[NAN, 1, 0], like=[NAN, NAN, NAN]), tensors(click_logit=[0] * 3, like_logit=[0] * 3)
    found = head.loss(labels, outputs)
    assert float(found.labelled) == pytest.approx(1 / 3)
    assert float(found.loss) == pytest.approx(-np.log(0.75) / 3)


def test_gradients_of_entire_space_reach_the_parent_and_of_conditional_do_not():
    labels = tensors(click=[1, 0], like=[1, NAN], dismiss=[0, 0])
    for space, reached in (("entire", True), ("conditional", False)):
        head = objective_heads(changed(like={"given": "click", "space": space}), statistics())["like"]
        outputs = tensors(click_logit=[0.5, -0.5], like_logit=[0.1, 0.2])
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = head.loss(labels, outputs).loss
        gradient = tape.gradient(loss, outputs["click_logit"])
        if not reached:
            assert gradient is None
            continue
        # Happened: d/dz -log sigmoid(z) = -(1 - p). Did not: q (1 - p) / (1 - p q), p the parent's, q the own.
        p, q = sigmoid(-0.5), sigmoid(0.2)
        expected = [-(1 - sigmoid(0.5)) / 2, q * p * (1 - p) / (1 - p * q) / 2]
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("correction", ["export", "weights"])
def test_sampled_negatives(correction):
    kept = {"click": 0.1, "like": 0.25}
    labels = {name: LabelStatistics(999, 0.4, 0.5, 0.0, share) for name, share in kept.items()}
    config = changed({"negatives": 0.1, "correction": correction}, like={"given": "click", "space": "entire"})
    heads = objective_heads(config, statistics(**labels))
    shift = {name: np.log(share) if correction == "export" else 0.0 for name, share in kept.items()}
    logit = tf.constant([-1.0, 2.0])
    for name in kept:
        expected = sigmoid(logit.numpy() + shift[name])
        np.testing.assert_allclose(heads[name].prediction(logit), expected, rtol=1e-5)
        # The first prediction is the rate among all impressions, with half a label on each side.
        rate, r = (0.4 * 999 + 0.5) / 1000, kept[name]
        first = float(heads[name].prediction(tf.constant(heads[name].initial_logit)))
        assert first == pytest.approx(rate * r / (rate * r + 1 - rate), rel=1e-5)
    # Training sees the logits of the sample; validation, which is not sampled, the served ones.
    there, outputs = tensors(click=[1, 0], like=[1, NAN]), {"click_logit": logit, "like_logit": logit}
    for training in (True, False):
        moved = {name: logit.numpy() + (0.0 if training else shift[name]) for name in kept}
        click, like = sigmoid(moved["click"]), sigmoid(moved["like"])
        loss = heads["click"].loss(there, outputs, training=training).loss
        assert float(loss) == pytest.approx(-(np.log(click[0]) + np.log(1 - click[1])) / 2, rel=1e-5)
        loss = heads["like"].loss(there, outputs, training=training).loss
        expected = -(np.log(click[0] * like[0]) + np.log(1 - click[1] * like[1])) / 2
        assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_no_negative_kept_is_refused():
    labels = {"click": LabelStatistics(10, 1.0, 0.0, 1.0, 0.0)}
    with pytest.raises(InputError, match=r"negative of `click`: .* Received: a share of 0.0 of its negatives\.$"):
        objective_heads(changed({"negatives": 0.1}), statistics(**labels))


def test_uncertainty_is_of_the_heads_in_their_order():
    raw = small_config()
    raw["training"]["loss_weighting"] = "uncertainty"
    raw["objectives"][1]["loss_weight"] = 3.0
    config = parse_config(raw)
    layer = loss_weighting(config, objective_heads(config, statistics()))
    assert isinstance(layer, UncertaintyWeights)
    assert layer.objectives == ["click", "watch_time", "like", "dismiss"]
    assert layer.loss_weights == [1.0, 3.0, 1.0, 1.0]
    assert layer.scales == [1.0, 0.5, 1.0, 1.0]
