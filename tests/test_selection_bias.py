"""Kinds of selection bias: what reaches which part of the ranker, in training and when served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.layers import reverse_gradient
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import composite_optimizer
from mmoe_ranker.serving_signatures import ServingModule
from mmoe_ranker.statistics import Statistics
from tests.configs import small_config
from tests.test_model import random_labels, raw_features, without

KINDS: dict[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "shallow_tower": small_config()["model"]["bias"],
    "input_feature": {"kind": "input_feature", "features": ["position"], "dropout": 0.3},
    "adversarial": {"kind": "adversarial", "features": ["position"], "units": [7], "weight": 0.5},
}


def build(kind: str, statistics: Statistics) -> Ranker:
    raw = small_config()
    raw["model"]["bias"] = KINDS[kind]
    config = parse_config(raw)
    tf.keras.utils.set_random_seed(0)
    ranker = Ranker(config, statistics)
    ranker(ranker.feature_rows(raw_features(1)))
    ranker.compile(optimizer=composite_optimizer(ranker, config.training))
    return ranker


def test_the_shallow_tower_learns_by_an_optimiser_of_its_own(statistics: Statistics) -> None:
    features, labels = raw_features(64), random_labels(64)
    moved = []
    for rate in (None, 1.0):
        raw = small_config()
        raw["training"] |= {"optimizer": {"name": "sgd", "learning_rate": 0.1}}
        raw["training"] |= {} if rate is None else {"bias_optimizer": {"name": "sgd", "learning_rate": rate}}
        config = parse_config(raw)
        tf.keras.utils.set_random_seed(0)
        ranker = Ranker(config, statistics)
        ranker(ranker.feature_rows(features))
        ranker.compile(optimizer=composite_optimizer(ranker, config.training))
        before = {variable.name: variable.numpy() for variable in ranker.trainable_variables}
        ranker.fit(tf.data.Dataset.from_tensors((ranker.feature_rows(features), labels)), verbose=0)
        moved.append(
            {variable.name: variable.numpy() - before[variable.name] for variable in ranker.trainable_variables}
        )
    tower = {variable.name for variable in ranker.bias.tower.trainable_variables}
    assert tower < set(moved[0])
    for name, change in moved[0].items():
        # One step of the same gradient, ten times as long for the tower.
        np.testing.assert_allclose(moved[1][name], change * (10.0 if name in tower else 1.0), rtol=1e-4, atol=1e-6)
    assert all(np.abs(moved[0][name]).max() > 1e-5 for name in tower)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_and_is_served_without_position(kind: str, statistics: Statistics, tmp_path: Path) -> None:
    raw = small_config()
    raw["model"]["bias"] = KINDS[kind]
    config, ranker = parse_config(raw), build(kind, statistics)
    built = len(ranker.trainable_variables)
    features = raw_features(64)
    ranker.fit(tf.data.Dataset.from_tensors((ranker.feature_rows(features), random_labels(64))), epochs=2, verbose=0)
    # A variable that came with the first step would be missing in a checkpoint's restore.
    assert len(ranker.trainable_variables) == built
    module = ServingModule(ranker, config)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.signatures())
    signatures = tf.saved_model.load(str(tmp_path / "model")).signatures
    served = without(features, "position")
    for name in ("serving_default", "rank"):
        assert "position" not in signatures[name].structured_input_signature[1]
    expected = ranker(ranker.feature_rows(served))
    answers = signatures["serving_default"](**served)
    for name in config.objective_names:
        np.testing.assert_allclose(answers[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize(("kind", "differs"), [("none", False), ("input_feature", True), ("adversarial", False)])
def test_position_reaches_the_main_tower_as_an_input_feature_alone(
    kind: str, differs: bool, statistics: Statistics
) -> None:
    ranker = build(kind, statistics)
    features = ranker.feature_rows(raw_features(30))
    at = [ranker(features | {"position": tf.fill([30], row)}) for row in (0, 1, 9)]
    missing = ranker(without(features, "position"))
    for name in ("click", "watch_time", "like", "dismiss"):
        np.testing.assert_array_equal(at[0][f"relevance_{name}_logit"], missing[f"relevance_{name}_logit"])
        assert (np.abs(at[1][f"{name}_logit"] - at[2][f"{name}_logit"]).max() > 1e-6) == differs


def test_input_feature_is_missing_for_its_share_of_training_impressions(statistics: Statistics) -> None:
    ranker = build("input_feature", statistics)
    rows = {"position": tf.fill([20_000], 3)}
    encoded = ranker.bias.extend_input(tf.zeros([20_000, 2]), rows, training=True).numpy()
    missing, third = ranker.bias.tables["position"](tf.constant([0, 3])).numpy()
    is_missing = np.isclose(encoded[:, 2:], missing).all(axis=1)
    assert np.isclose(encoded[~is_missing, 2:], third).all()
    # Binomial: 3 standard deviations are .0097.
    assert abs(is_missing.mean() - 0.3) < 0.0097
    np.testing.assert_array_equal(ranker.bias.extend_input(tf.zeros([5, 2]), {}, training=False)[:, 2:], [missing] * 5)


def test_gradient_reversal_by_hand() -> None:
    values = tf.Variable([1.0, -2.0])
    with tf.GradientTape() as tape:
        kept = reverse_gradient(values, 0.25)
        total = tf.reduce_sum(kept * [3.0, 4.0])
    np.testing.assert_array_equal(kept, values)
    np.testing.assert_allclose(tape.gradient(total, values), [-0.75, -1.0])


def test_the_adversary_loss_and_its_reversed_gradient(statistics: Statistics) -> None:
    ranker = build("adversarial", statistics)
    adversary = ranker.bias
    rng = np.random.default_rng(0)
    shared = tf.Variable(rng.normal(size=(6, 16)), dtype=tf.float32)
    rows = np.array([1, 5, 0, 9, 2, 0])

    def mean_cross_entropy() -> tf.Tensor:
        logits = adversary.heads["position"](adversary.hidden(shared))
        return -tf.reduce_mean(tf.gather(tf.nn.log_softmax(logits), rows, batch_dims=1)[rows > 0])

    with tf.GradientTape() as tape:
        expected = mean_cross_entropy()
    plain = tape.gradient(expected, [shared, *adversary.trainable_variables])
    with tf.GradientTape() as tape:
        loss = adversary.loss({"position": tf.constant(rows, tf.int32)}, {}, adversary.read_shared(shared))
    reversed_ = tape.gradient(loss, [shared, *adversary.trainable_variables])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(reversed_[0], -0.5 * plain[0], rtol=1e-4, atol=1e-7)
    for ours, theirs in zip(reversed_[1:], plain[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)


def test_a_batch_without_positions_has_no_adversary_loss(statistics: Statistics) -> None:
    ranker = build("adversarial", statistics)
    assert float(ranker.bias.loss({}, {}, ranker.bias.read_shared(tf.ones([4, 16])))) == 0.0


@pytest.mark.slow
def test_the_adversary_makes_the_shared_layer_forget_position(statistics: Statistics) -> None:
    """A candidate feature gives position away; a linear probe must read it worse from the shared layer."""
    share = {}
    for kind in ("none", "adversarial"):
        ranker = build(kind, statistics)
        raw = raw_features(2000)
        position = np.random.default_rng(1).integers(1, 4, 2000)
        raw["content"] = tf.constant(np.eye(6)[position] * 3, tf.float32)
        raw["position"] = tf.constant(position)
        features = ranker.feature_rows(raw)
        if kind == "adversarial":
            ranker.bias.weight = 5.0
        data = tf.data.Dataset.from_tensor_slices((features, random_labels(2000))).batch(200)
        ranker.fit(data, epochs=30, verbose=0)
        shared = ranker(features)["shared"].numpy()
        design = np.c_[shared, np.ones(2000)]
        fitted = design[:1000], np.eye(4)[position[:1000]]
        weights = np.linalg.lstsq(*fitted, rcond=None)[0]
        share[kind] = (np.argmax(design[1000:] @ weights, axis=1) == position[1000:]).mean()
    assert share["none"] > 0.95
    assert share["adversarial"] < share["none"] - 0.1
