"""The encoder's wiring: double hashing, out-of-vocabulary dropout, attention from the candidate, projections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.features import FeatureEncoder, FeatureRows, most_recent
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import composite_optimizer
from mmoe_ranker.serving_signatures import ServingModule
from mmoe_ranker.statistics import Statistics
from tests.configs import small_config
from tests.test_model import random_labels

_CONTEXT = ("user_id", "device", "watch_history", "queries")


def rich_config() -> dict[str, Any]:
    """Every way of encoding a feature at once."""
    raw = small_config()
    features = {feature["name"]: feature for feature in raw["features"]}
    features["user_id"]["hashes"] = 2
    features["device"]["oov_dropout"] = 0.1
    features["watch_history"]["pooling"] = "attention"
    features["video_id"]["oov_dropout"] = 0.3
    features["content"]["projection"] = 3
    queries = {"name": "queries", "side": "context", "kind": "sequence", "buckets": 50, "hashes": 2, "max_length": 3}
    raw["features"].append(queries | {"dim": 4})
    raw["model"]["sharing"] = {"kind": "ple", "levels": 2, "shared_experts": 2, "objective_experts": 1, "units": [8]}
    return raw


def rich_features(count: int, seed: int = 0) -> dict[str, tf.Tensor]:
    """Raw features for it, of `count` impressions of as many requests."""
    rng = np.random.default_rng(seed)

    def places(values: list[str], length: int) -> tf.Tensor:
        drawn = rng.choice(values, (count, length))
        drawn[rng.random((count, length)) < 0.4] = ""
        drawn[-1] = ""
        return tf.constant(drawn)

    return {
        "user_id": tf.constant([f"u{index}" for index in rng.integers(0, 50, count)]),
        "device": tf.constant(rng.choice(["phone", "tv", "web", "watch", ""], count)),
        "watch_history": places([f"v{index}" for index in range(25)], 7),
        "queries": places(["cats", "dogs", "news"], 4),
        "video_id": tf.constant([f"v{index}" for index in rng.integers(0, 25, count)]),
        "duration": tf.constant(rng.random(count) * 100, tf.float32),
        "content": tf.constant(rng.normal(size=(count, 6)), tf.float32),
        "position": tf.constant(rng.integers(1, 21, count)),
    }


@pytest.fixture
def rich() -> Config:
    return parse_config(rich_config())


@pytest.fixture
def ranker(rich: Config, statistics: Statistics) -> Ranker:
    tf.keras.utils.set_random_seed(0)
    ranker = Ranker(rich, statistics)
    ranker(ranker.feature_rows(rich_features(1)))
    for table in ranker.encoder.tables.values():
        table.set_weights([np.random.default_rng(7).normal(size=weights.shape) for weights in table.get_weights()])
    return ranker


def test_encoding_by_hand(ranker: Ranker) -> None:
    rows = ranker.feature_rows(rich_features(6))
    encoder = ranker.encoder
    encoded = encoder(rows).numpy()
    # Context in config order, candidate, attended sequence last.
    parts = np.split(encoded, np.cumsum([8, 4, 4, 8, 1 + 1 + 2, 3]), axis=1)
    tables = {name: table.get_weights()[0] for name, table in encoder.tables.items()}
    user, device, queries, video, _, content, history = parts
    np.testing.assert_allclose(user, tables["user_id"][rows["user_id"].numpy()].sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(device, tables["device"][rows["device"].numpy()], rtol=1e-5)
    np.testing.assert_allclose(video, tables["video_id"][rows["video_id"].numpy()], rtol=1e-5)
    kernel, bias = encoder.projections["content"].get_weights()
    np.testing.assert_allclose(content, rows["content"].numpy() @ kernel + bias, rtol=1e-4, atol=1e-5)
    attention = encoder.attentions["watch_history"]
    product = attention.query_kernel.numpy() @ attention.key_kernel.numpy().T
    for impression in range(6):
        held = [row for row in rows["queries"].numpy()[impression] if row[0] > 0]
        expected = np.mean([tables["queries"][row].sum(axis=0) for row in held], axis=0) if held else np.zeros(4)
        np.testing.assert_allclose(queries[impression], expected, rtol=1e-4, atol=1e-5)
        places = [tables["video_id"][row] for row in rows["watch_history"].numpy()[impression] if row > 0]
        if places:
            weights = np.exp([video[impression] @ product @ place / np.sqrt(8) for place in places])
            expected = (weights[:, np.newaxis] * places).sum(axis=0) / weights.sum()
        else:
            expected = np.zeros(8)
        np.testing.assert_allclose(history[impression], expected, rtol=1e-4, atol=1e-5)
    assert not history[-1].any()


def test_the_most_recent_of_double_hashed_rows() -> None:
    rows = tf.constant([[[1, 2], [0, 0], [3, 4], [5, 6]]])
    assert most_recent(rows, 2).numpy().tolist() == [[[0, 0], [0, 0], [3, 4], [5, 6]]]


def test_context_once_gives_what_context_repeated_gives(ranker: Ranker) -> None:
    raw = rich_features(6, seed=3)
    context = {name: raw[name][:1] for name in _CONTEXT}
    candidate = {name: values for name, values in raw.items() if name not in _CONTEXT}
    once = ranker.encoder(ranker.feature_rows(context | candidate))
    repeated = {name: tf.repeat(values, 6, axis=0) for name, values in context.items()}
    np.testing.assert_allclose(once, ranker.encoder(ranker.feature_rows(repeated | candidate)), rtol=1e-4, atol=1e-5)


def test_known_ids_are_dropped_in_training_alone_in_sequences_place_by_place(ranker: Ranker) -> None:
    encoder, count = ranker.encoder, 400
    raw = rich_features(1)
    raw |= {"video_id": tf.constant(["v3"]), "watch_history": tf.constant([["", "", "", "v1", "v2", "v1", "v1"]])}
    rows = ranker.feature_rows({name: tf.repeat(values, count, axis=0) for name, values in raw.items()})
    # One number tells the rows apart.
    encoder.tables["video_id"].set_weights([np.repeat(np.arange(25.0)[:, np.newaxis], 8, axis=1)])
    encoder.attentions["watch_history"].query_kernel.assign(tf.zeros([8, 8]))  # an even mean
    video = encoder(rows, training=True).numpy()[:, 16]
    known = float(rows["video_id"][0])
    assert set(video) == {known, 1 + known % 4}
    assert abs(np.mean(video != known) - 0.3) < 0.1
    # The mean of four places falls by 3/4 with each that is dropped: none to all four of them are, although v1 stands
    # there three times.
    dropped = (6.25 - encoder(rows, training=True).numpy()[:, -1]) / 0.75
    assert set(dropped) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert abs(dropped.mean() - 4 * 0.3) < 0.2
    for training in (False, None):
        served = encoder(rows, training=training).numpy()
        assert set(served[:, 16]) == {known}
        assert len(set(served[:, -1])) == 1


def test_a_step_trains_the_out_of_vocabulary_rows(ranker: Ranker, rich: Config) -> None:
    raw = rich_features(64)
    raw["watch_history"] = tf.fill([64, 7], "")
    raw["video_id"] = tf.constant([f"v{index % 20}" for index in range(64)])  # known ones alone
    features = ranker.feature_rows(raw)
    ranker.compile(optimizer=composite_optimizer(ranker, rich.training))
    table = ranker.encoder.tables["video_id"]
    before = table.get_weights()[0]
    ranker.fit(tf.data.Dataset.from_tensors((features, random_labels(64))), verbose=0)
    changed = set(np.flatnonzero((table.get_weights()[0] != before).any(axis=1)))
    assert changed & {1, 2, 3, 4}
    assert 0 not in changed or not before[0].any()


def test_training_logs_expert_health(ranker: Ranker, rich: Config) -> None:
    ranker.compile(optimizer=composite_optimizer(ranker, rich.training))
    batch = (ranker.feature_rows(rich_features(64)), random_labels(64))
    data = tf.data.Dataset.from_tensors(batch)
    history = ranker.fit(data, validation_data=data, verbose=0).history
    for name in ("click_gate_entropy", "click_gate_polarised", "click_own_expert_0", "like_expert_1", "dead_experts"):
        assert np.isfinite(history[name]).all()
        assert np.isfinite(history[f"val_{name}"]).all()
    total = sum(history[f"click_{name}"][0] for name in ("own_expert_0", "expert_0", "expert_1"))
    assert total == pytest.approx(1.0, abs=1e-5)
    gates = ranker(batch[0])["gates"].numpy()
    assert history["val_click_expert_1"][0] == pytest.approx(gates[:, 0, 2].mean(), abs=1e-5)
    assert history["silent_experts_level_0"] == [0.0]


def test_rank_answers_as_serving_default_does(ranker: Ranker, rich: Config, tmp_path: Path) -> None:
    ranker.compile(optimizer=composite_optimizer(ranker, rich.training))
    batch = (ranker.feature_rows(rich_features(64)), random_labels(64))
    ranker.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
    module = ServingModule(ranker, rich)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.signatures())
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    raw = {name: values for name, values in rich_features(30, seed=5).items() if name != "position"}
    request = {name: values[:1] if name in _CONTEXT else values for name, values in raw.items()}
    tiled = {name: tf.repeat(values, 30, axis=0) if name in _CONTEXT else values for name, values in request.items()}
    ranked = loaded.signatures["rank"](**request, score_weights=tf.ones([4]))
    expected = loaded.signatures["serving_default"](**tiled)
    in_process = ranker(ranker.feature_rows(tiled))
    for name in rich.objective_names:
        np.testing.assert_allclose(ranked[name], expected[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ranked[name], in_process[name], rtol=1e-4, atol=1e-5)
    assert np.ptp(ranked["click"].numpy()) > 1e-4


def test_the_encoder_of_one_side(statistics: Statistics) -> None:
    raw = rich_config()
    raw["features"] = [feature for feature in raw["features"] if feature["name"] in ("video_id", "watch_history")]
    raw["model"].pop("bias")
    config = parse_config(raw)
    rows = FeatureRows(config, statistics)
    encoder = FeatureEncoder(config, statistics, rows)
    features = rich_features(5)
    history = {"watch_history": features["watch_history"][:1], "video_id": features["video_id"]}
    assert encoder(rows(history)).shape == (5, 16)
