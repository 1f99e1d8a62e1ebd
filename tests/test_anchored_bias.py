"""Bias kind `anchored`: two readings, and numbers that impressions in random order alone may move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.anchored_bias import AnchoredBias
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.incremental import compile_ranker, copy_ranker
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import composite_optimizer
from mmoe_ranker.serving_signatures import ServingModule
from mmoe_ranker.statistics import Statistics
from tests.configs import small_config
from tests.test_model import random_labels, raw_features, without

# What position adds to the log-odds of a click, of positions 1 to 20.
CURVE = np.linspace(0.0, -2.0, 20)


def anchored_config(flagged: bool = True, vocabulary: tuple[str, ...] = ("false", "true")) -> dict[str, Any]:
    raw = small_config()
    raw["features"].append(
        {"name": "random_order", "side": "bias", "kind": "categorical", "vocabulary": list(vocabulary)}
    )
    raw["model"]["sharing"]["gate_dropout"] = 0.0
    raw["model"]["bias"]["kind"] = "anchored"
    raw["model"]["bias"]["random_order"] = "random_order" if flagged else None
    return raw


def build(raw: dict[str, Any], statistics: Statistics) -> Ranker:
    tf.keras.utils.set_random_seed(0)
    config = parse_config(raw)
    ranker = Ranker(config, statistics)
    ranker(ranker.feature_rows(features(1)))
    ranker.compile(optimizer=composite_optimizer(ranker, config.training))
    return ranker


def features(count: int, seed: int = 0) -> dict[str, tf.Tensor]:
    flags = np.where(np.random.default_rng(seed).random(count) < 0.3, "true", "false")
    return raw_features(count, seed) | {"random_order": tf.constant(flags)}


@pytest.fixture
def ranker(statistics: Statistics) -> Ranker:
    return build(anchored_config(), statistics)


def test_training_is_that_of_the_shallow_tower_and_a_second_reading(ranker: Ranker) -> None:
    rows, labels = ranker.feature_rows(features(100)), random_labels(100)
    tower = ranker.bias.tower
    tower.tables["position"].embeddings.assign(np.linspace(0.0, -1.0, 22)[:, np.newaxis])
    tower.generator.reset_from_seed(1)
    loss = ranker.compute_loss((rows, labels), training=True)
    tower.generator.reset_from_seed(1)
    outputs = ranker(rows, training=True)
    np.testing.assert_array_equal(outputs["relevance_click_logit"], outputs["unbiased_click_logit"])
    np.testing.assert_allclose(
        outputs["click_logit"], outputs["unbiased_click_logit"] + outputs["bias_click_logit"], rtol=1e-6
    )
    click, prob = labels["click"].numpy(), 1.0 / (1.0 + np.exp(-outputs["logged_click_logit"].numpy()))
    of_logged = -np.mean(click * np.log(prob) + (1.0 - click) * np.log(1.0 - prob))
    heads = sum(float(head.loss(labels, outputs).loss) for head in ranker.heads.values())
    assert float(loss) == pytest.approx(heads + of_logged, rel=1e-5)


def test_no_gradient_comes_from_the_mix(ranker: Ranker) -> None:
    rows, labels = ranker.feature_rows(features(100)), random_labels(100)
    gradients = []
    for numbers in ([0.0, 1.0, 0.0, 1.0], [2.0, -1.0, 3.0, 0.3]):
        ranker.bias.mix.coefficients.assign([numbers])
        ranker.bias.tower.generator.reset_from_seed(1)
        with tf.GradientTape() as tape:
            loss = ranker.compute_loss((rows, labels), training=True)
        found = tape.gradient(loss, ranker.trainable_variables, unconnected_gradients="zero")
        gradients.append([tf.convert_to_tensor(gradient).numpy() for gradient in found])
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(one, other)
    names = {variable.ref() for variable in ranker.trainable_variables}
    assert not any(variable.ref() in names for variable in ranker.bias.mix.variables + ranker.bias.level.variables)


def test_random_requests_alone_move_the_numbers(ranker: Ranker) -> None:
    rows, labels = ranker.feature_rows(features(200)), random_labels(200)
    bias = ranker.bias
    start = bias.mix.coefficients.numpy()
    flagged = (rows["random_order"] == bias.flagged).numpy()

    def moved(rows: dict[str, tf.Tensor], weights: np.ndarray | None = None, training: bool = True) -> list[bool]:
        kept = [variable.numpy() for layer in (bias.mix, bias.level) for variable in layer.variables]
        given = () if weights is None else (tf.constant(weights, tf.float32),)
        ranker.compute_loss((rows, labels, *given), training=training)
        changed = [bool(np.abs(bias.mix.coefficients - start).max() > 1e-5), bool(abs(bias.level.coefficients) > 1e-5)]
        for variable, value in zip([*bias.mix.variables, *bias.level.variables], kept, strict=True):
            variable.assign(value)
        return changed

    logged = rows | {"random_order": tf.fill([200], bias.flagged - 1)}
    assert moved(rows) == [True, True]
    assert moved(rows, training=False) == [False, False]
    # The level stands for the log as a whole.
    assert moved(logged) == [False, True]
    assert moved(without(rows, "random_order")) == [False, True]
    assert moved(without(rows, "position")) == [False, True]
    assert moved(rows, weights=~flagged) == [False, True]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("right", ["logged", "unbiased"])
def test_the_mix_is_the_reading_that_random_requests_bear_out(right: str, seed: int, statistics: Statistics) -> None:
    bias = build(anchored_config(), statistics).bias
    # A curve twice as steep as the true one, which has absorbed relevance.
    bias.tower.tables["position"].embeddings.assign(2.0 * np.r_[0.0, 0.0, CURVE][:, np.newaxis])
    rng = np.random.default_rng(seed)
    for _ in range(20):
        learn_batch(bias, right, rng)
    t0, t1, t2, t3 = bias.mix.coefficients.numpy()[0]
    assert t0 == pytest.approx(-1.0, abs=0.25)
    assert t3 == pytest.approx(0.5, abs=0.15)
    of_logged, of_unbiased = t1 / 2 + t2, t1 / 2 - t2
    assert (of_logged, of_unbiased) == pytest.approx((1.0, 0.0) if right == "logged" else (0.0, 1.0), abs=0.1)


def learn_batch(bias: AnchoredBias, right: str, rng: np.random.Generator) -> None:
    """A thousand impressions in random order, on which one reading is relevance and the other is chance."""
    relevance, chance = rng.normal(size=(2, 1000))
    position = rng.integers(1, 21, 1000)
    click = rng.random(1000) < 1.0 / (1.0 + np.exp(-(relevance + CURVE[position - 1] - 1.0)))
    rows = {"position": tf.constant(position + 1, tf.int32), "random_order": tf.fill([1000], bias.flagged)}
    readings = {"logged": chance, "unbiased": chance} | {right: relevance}
    outputs = {f"{name}_click_logit": tf.constant(values, tf.float32) for name, values in readings.items()}
    bias.loss(rows, {"click": tf.constant(click, tf.float32)}, outputs, training=True)


def test_without_a_flag_half_of_each_reading_is_served(statistics: Statistics) -> None:
    ranker = build(anchored_config(flagged=False), statistics)
    rows = ranker.feature_rows(features(100))
    ranker.compute_loss((rows, random_labels(100)), training=True)
    np.testing.assert_array_equal(ranker.bias.mix.coefficients, [[0.0, 1.0, 0.0, 1.0]])
    outputs = {name: values.numpy() for name, values in ranker(rows).items()}
    mean = (outputs["unbiased_click_logit"] + outputs["logged_click_logit"]) / 2.0
    np.testing.assert_allclose(outputs["relevance_click_logit"], mean, rtol=1e-5)


def test_it_is_served_calibrated_and_restored(statistics: Statistics, tmp_path: Path) -> None:
    raw = anchored_config()
    raw["training"]["loss_weighting"] = "uncertainty"
    config, ranker = parse_config(raw), build(raw, statistics)
    built = len(ranker.variables)
    given, labels = features(4000), random_labels(4000)
    logit = CURVE[given["position"].numpy() - 1] + given["content"].numpy()[:, 0]
    labels["click"] = tf.constant(np.random.default_rng(1).random(4000) < 1.0 / (1.0 + np.exp(-logit)), tf.float32)
    rows = ranker.feature_rows(given)
    ranker.fit(tf.data.Dataset.from_tensor_slices((rows, labels)).batch(200), epochs=6, verbose=0)
    # A variable that came with the first step would be missing in a checkpoint's restore.
    assert len(ranker.variables) == built
    numbers = ranker.bias.mix.coefficients.numpy()
    assert not np.allclose(numbers, [[0.0, 1.0, 0.0, 1.0]])

    served = without(without(given, "position"), "random_order")
    module = ServingModule(ranker, config)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.signatures())
    signature = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    assert not {"position", "random_order"} & set(signature.structured_input_signature[1])
    click = signature(**served)["click"].numpy()
    outputs = ranker(rows | {"position": tf.zeros([4000], tf.int32)})
    unbiased, logged = (outputs[f"{reading}_click_logit"].numpy() for reading in ("unbiased", "logged"))
    relevance = numbers[0, 1] * (unbiased + logged) / 2.0 + numbers[0, 2] * (logged - unbiased)
    curve = ranker.bias.tower({"position": tf.zeros([4000], tf.int32), "device": rows["device"]}).numpy()[:, 0]
    level = ranker.bias.level.coefficients.numpy()[0, 0]
    np.testing.assert_allclose(click, 1 / (1 + np.exp(-(relevance + level + numbers[0, 3] * curve))), rtol=1e-4)
    # Clicks are a third: binomial, 3 standard deviations are .07 of their mean.
    assert click.mean() / labels["click"].numpy().mean() == pytest.approx(1.0, abs=0.05)

    path = tf.train.Checkpoint(model=ranker).write(str(tmp_path / "checkpoint"))
    other = build(raw, statistics)
    tf.train.Checkpoint(model=other).read(path).assert_existing_objects_matched().expect_partial()
    for one, restored in zip(ranker.bias.variables, other.bias.variables, strict=True):
        np.testing.assert_array_equal(one, restored)


def test_tomorrow_goes_on_from_the_numbers(ranker: Ranker, statistics: Statistics) -> None:
    training = parse_config(anchored_config()).training
    ranker.compute_loss((ranker.feature_rows(features(200)), random_labels(200)), training=True)
    tomorrow = build(anchored_config(), statistics)
    for each in (ranker, tomorrow):
        compile_ranker(each, training)
    copy_ranker(ranker, tomorrow)
    assert ranker.bias.mix.seen.numpy() > 0
    for layer, copied in ((ranker.bias.mix, tomorrow.bias.mix), (ranker.bias.level, tomorrow.bias.level)):
        for one, other in zip(layer.variables, copied.variables, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_flag_without_the_value_true(statistics: Statistics) -> None:
    with pytest.raises(InputError, match=r"`random_order` must hold `true`.*Received: \['no', 'yes'\]\.$"):
        Ranker(parse_config(anchored_config(vocabulary=("no", "yes"))), statistics)
