"""The ranker: its outputs, losses with missing labels, bias only in training, sparse steps, plain Keras use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import composite_optimizer
from mmoe_ranker.statistics import LabelStatistics, Statistics
from tests.configs import small_config


def raw_features(count: int, seed: int = 0) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    history = np.where(rng.random((count, 7)) < 0.5, "", rng.integers(0, 20, (count, 7)).astype(str))
    return {
        "user_id": tf.constant(rng.integers(0, 50, count).astype(str)),
        "device": tf.constant(rng.choice(["phone", "tv", "web", "watch", ""], count)),
        "watch_history": tf.constant(np.char.add("v", history)),
        "video_id": tf.constant(np.char.add("v", rng.integers(0, 25, count).astype(str))),
        "duration": tf.constant(np.where(rng.random(count) < 0.1, np.nan, rng.random(count) * 100), tf.float32),
        "content": tf.constant(rng.normal(size=(count, 6)), tf.float32),
        "position": tf.constant(rng.integers(1, 21, count)),
    }


def random_labels(count: int, seed: int = 0) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    click = (rng.random(count) < 0.4).astype(np.float32)
    watch = np.where(click == 1, rng.random(count) * 60, np.nan)
    labels = {"click": click, "watch_time": watch, "like": rng.random(count) < 0.1, "dismiss": np.zeros(count)}
    return {name: tf.constant(values, tf.float32) for name, values in labels.items()}


def without(features: Mapping[str, tf.Tensor], name: str) -> dict[str, tf.Tensor]:
    return {key: values for key, values in features.items() if key != name}


@pytest.fixture
def ranker(config: Config, statistics: Statistics) -> Ranker:
    tf.keras.utils.set_random_seed(0)
    ranker = Ranker(config, statistics)
    ranker(ranker.feature_rows(raw_features(1)))
    return ranker


def test_outputs(ranker: Ranker) -> None:
    outputs = ranker(ranker.feature_rows(raw_features(9)))
    assert outputs["gates"].shape == (9, 4, 4)
    assert {name for name in outputs if name.startswith("bias_")} == {"bias_click_logit"}
    for name in ("click", "watch_time", "like", "dismiss"):
        assert outputs[name].shape == outputs[f"{name}_logit"].shape == outputs[f"relevance_{name}_logit"].shape == (9,)
    np.testing.assert_allclose(outputs["click"], 1 / (1 + np.exp(-outputs["click_logit"].numpy())), rtol=1e-5)


def test_bias_is_added_to_the_logit_of_biased_objectives_alone(ranker: Ranker) -> None:
    features = ranker.feature_rows(raw_features(40))
    before = ranker(features)
    assert ranker.bias.tower is not None
    ranker.bias.tower.tables["position"].set_weights([np.linspace(-1, 1, 22)[:, np.newaxis]])
    after = ranker(features)
    bias = np.linspace(-1, 1, 22)[features["position"].numpy()]
    np.testing.assert_allclose(after["bias_click_logit"], bias, rtol=1e-5)
    np.testing.assert_allclose(after["click_logit"], before["click_logit"] + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after["relevance_click_logit"], before["click_logit"])
    np.testing.assert_array_equal(after["like"], before["like"])


def test_a_missing_position_is_row_0_not_a_made_up_one(ranker: Ranker) -> None:
    assert ranker.bias.tower is not None
    ranker.bias.tower.tables["position"].set_weights([np.arange(22.0)[:, np.newaxis]])
    features = ranker.feature_rows(raw_features(5))
    np.testing.assert_array_equal(ranker(without(features, "position"))["bias_click_logit"], np.zeros(5))


def test_context_once_gives_what_context_repeated_gives(ranker: Ranker) -> None:
    raw = raw_features(6)
    context = {name: raw[name][:1] for name in ("user_id", "device", "watch_history")}
    candidate = {name: raw[name] for name in ("video_id", "duration", "content")}
    repeated = {name: tf.repeat(values, 6, axis=0) for name, values in context.items()}
    once = ranker(ranker.feature_rows(context | candidate))
    full = ranker(ranker.feature_rows(repeated | candidate))
    for name in ("click", "watch_time", "like", "dismiss"):
        np.testing.assert_allclose(once[name], full[name], rtol=1e-5)


@pytest.mark.parametrize("padding", [["", ""], []])
def test_history_keeps_the_most_recent_wherever_the_padding_is(ranker: Ranker, padding: list[str]) -> None:
    long = [f"v{place}" for place in range(9)]
    histories = [padding + long, long + padding] if padding else [long]
    rows = ranker.feature_rows({"watch_history": tf.constant(histories)})["watch_history"].numpy()
    expected = ranker.feature_rows({"video_id": tf.constant(long[-5:])})["video_id"].numpy()
    for row in rows:
        assert row[row > 0].tolist() == expected.tolist()


def test_first_predictions_are_the_mean_labels(ranker: Ranker) -> None:
    for layer in ranker.tower:
        layer.set_weights([np.zeros_like(weights) for weights in layer.get_weights()])
    outputs = ranker(without(ranker.feature_rows(raw_features(3)), "position"))
    # Half a label on each side: (0.2 * 1000 + .5) / 1001.
    np.testing.assert_allclose(outputs["click"], 200.5 / 1001, rtol=1e-5)
    np.testing.assert_allclose(outputs["watch_time"], np.expm1(3.0), rtol=1e-5)


def test_loss_is_cross_entropy_and_squared_error_over_what_is_labelled(ranker: Ranker) -> None:
    features, labels = ranker.feature_rows(raw_features(50)), random_labels(50)
    outputs = {name: values.numpy().astype(float) for name, values in ranker(features).items()}
    loss = float(ranker.compute_loss((features, labels)))
    expected = 0.0
    for name in ("click", "like", "dismiss"):
        y, p = labels[name].numpy(), 1 / (1 + np.exp(-outputs[f"{name}_logit"]))
        expected += -np.sum(y * np.log(p) + (1 - y) * np.log(1 - p)) / 50
    clicked = labels["click"].numpy() == 1
    target = (np.log1p(labels["watch_time"].numpy()[clicked]) - 3.0) / 1.5
    expected += np.sum((outputs["watch_time_logit"][clicked] - target) ** 2) / 50
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_missing_label_moves_nothing(ranker: Ranker) -> None:
    features, labels = ranker.feature_rows(raw_features(30)), random_labels(30)
    nothing = {name: tf.fill([30], np.float32("nan")) for name in labels}
    with tf.GradientTape() as tape:
        loss = ranker.compute_loss((features, nothing), training=True)
    assert float(loss) == 0.0
    for gradient in tape.gradient(loss, ranker.trainable_variables):
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        assert values is None or not np.any(values.numpy())


def test_loss_weights_and_sample_weights(config: Config, statistics: Statistics) -> None:
    raw = small_config()
    raw["objectives"][2]["loss_weight"] = 0.0
    tf.keras.utils.set_random_seed(0)
    ranker = Ranker(parse_config(raw), statistics)
    features, labels = ranker.feature_rows(raw_features(20)), random_labels(20)
    flipped = labels | {"like": 1.0 - labels["like"]}
    assert float(ranker.compute_loss((features, labels))) == float(ranker.compute_loss((features, flipped)))
    plain = float(ranker.compute_loss((features, labels)))
    # Weights count relative to their mean in the batch, whatever their unit.
    assert float(ranker.compute_loss((features, labels, tf.fill([20], 2.0)))) == pytest.approx(plain, rel=1e-6)
    doubled = tf.constant([3.0] * 10 + [1.0] * 10)
    halves = [
        float(ranker.compute_loss(tf.nest.map_structure(lambda values, rows=rows: values[rows], (features, labels))))
        for rows in (slice(0, 10), slice(10, 20))
    ]
    weighted = float(ranker.compute_loss((features, labels, doubled)))
    assert weighted == pytest.approx(0.75 * halves[0] + 0.25 * halves[1], rel=1e-5)


def test_a_step_touches_only_the_rows_of_the_batch(ranker: Ranker, config: Config) -> None:
    ranker.compile(optimizer=composite_optimizer(ranker, config.training))
    features, labels = ranker.feature_rows(raw_features(4)), random_labels(4)
    ranker(features)
    table = ranker.encoder.tables["user_id"]
    before = table.get_weights()[0]
    ranker.fit(tf.data.Dataset.from_tensors((features, labels)), verbose=0)
    changed = np.flatnonzero((table.get_weights()[0] != before).any(axis=1))
    assert set(changed) == set(features["user_id"].numpy())


@pytest.mark.parametrize("optimizer", ["composite", "adam"])
@pytest.mark.parametrize("sharing", [None, {"kind": "shared_bottom", "units": [12]}])
def test_fit_learns_with_plain_keras(statistics: Statistics, optimizer: str, sharing: dict[str, Any] | None) -> None:
    raw = small_config()
    raw["model"]["sharing"] = sharing or raw["model"]["sharing"]
    config = parse_config(raw)
    tf.keras.utils.set_random_seed(0)
    ranker = Ranker(config, statistics)
    ranker.compile(optimizer=composite_optimizer(ranker, config.training) if optimizer == "composite" else "adam")
    features, labels = ranker.feature_rows(raw_features(512)), random_labels(512)
    data = tf.data.Dataset.from_tensor_slices((features, labels)).batch(64)
    history = ranker.fit(data, validation_data=data, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["click_auc"][-1] > history["click_auc"][0]
    assert {"val_click_auc", "watch_time_loss", "val_total_loss"} <= set(history)


def test_towers_of_no_layers_and_no_bias(statistics: Statistics) -> None:
    raw = small_config()
    raw["model"] = {"hidden": [], "tower": [], "sharing": {"kind": "shared_bottom", "units": [4]}}
    ranker = Ranker(parse_config(raw), statistics)
    outputs = ranker(ranker.feature_rows(raw_features(3)))
    assert "gates" not in outputs
    assert "bias_click_logit" not in outputs
    np.testing.assert_array_equal(outputs["click_logit"], outputs["relevance_click_logit"])


@pytest.mark.parametrize("projection", [None, 3])
def test_crosses_are_dcn_v2(statistics: Statistics, projection: int | None) -> None:
    raw = small_config()
    raw["model"]["crosses"] = {"layers": 2, "projection": projection}
    ranker = Ranker(parse_config(raw), statistics)
    features = ranker.feature_rows(raw_features(4))
    ranker(features)
    first = crossed = ranker.encoder(features).numpy()
    for layer in ranker.crosses:
        *matrices, bias = (weights.numpy() for weights in layer.weights)
        product = crossed
        for matrix in matrices:
            product = product @ matrix
        crossed = first * (product + bias) + crossed  # x_{l+1} = x_0 * (W x_l + b) + x_l
    expected = ranker.sharing(ranker.hidden(crossed))[1]
    np.testing.assert_allclose(ranker(features)["gates"], expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_another_config_are_refused(config: Config, statistics: Statistics) -> None:
    empty = Statistics(10, {}, {}, {})
    with pytest.raises(InputError, match=r"vocabulary of `device`.*Received: vocabularies of \[\]"):
        Ranker(config, empty)
    no_numeric = Statistics(10, {}, statistics.labels, statistics.vocabularies)
    with pytest.raises(InputError, match=r"moments of `duration`.*Received: moments of \[\]"):
        Ranker(config, no_numeric)
    labels = {"click": LabelStatistics(1, 0.0, 0.0)}
    with pytest.raises(InputError, match=r"objective `watch_time`.*Received: objectives \['click'\]"):
        Ranker(config, Statistics(10, statistics.numeric, labels, statistics.vocabularies))
