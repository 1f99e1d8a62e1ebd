"""Batches hold what the examples hold, in the order that the seed says, from the step that is asked for."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.dataset import (
    labelled_dataset,
    missing_features,
    parse_examples,
    parsed_dataset,
    serialized_examples,
    split_parts,
    training_dataset,
)
from mmoe_ranker.errors import InputError
from mmoe_ranker.example_encoding import encode_examples
from mmoe_ranker.examples import decode_examples, example_layout
from mmoe_ranker.features import FeatureRows
from mmoe_ranker.statistics import Statistics
from pipelines.canonical_columns import arrow_type
from pipelines.tfrecords import tfrecord_gzip
from tests.configs import small_config
from tests.conftest import TinyWorld


@pytest.fixture
def rows(tiny_world: TinyWorld) -> FeatureRows:
    return FeatureRows(tiny_world.config, Statistics.load(tiny_world.examples))


def test_parsed_equals_decoded(tiny_world: TinyWorld) -> None:
    fields = example_layout(tiny_world.config)
    records = [record.numpy() for record in serialized_examples(tiny_world.examples, "test").take(200)]
    parsed, decoded = parse_examples(tf.constant(records), fields), decode_examples(records, fields)
    missing = {"bytes": b"", "int64": -1, "float": np.nan}
    for field in fields:
        values = parsed[field.name].numpy()
        for row, expected in enumerate(decoded[field.name]):
            encode = (lambda value: value.encode()) if field.wire == "bytes" else (lambda value: value)
            if field.length == 1:
                wanted = missing[field.wire] if expected is None else encode(expected)
                np.testing.assert_equal(values[row], wanted)
            else:
                wanted = [encode(value) for value in expected or []]
                assert values[row].tolist()[: len(wanted)] == wanted
                assert all(value in (b"", -1) for value in values[row].tolist()[len(wanted) :])


def test_missing_features_are_what_the_layers_know(config: Config) -> None:
    features = missing_features(config, 2)
    assert features["device"].numpy().tolist() == [b"", b""]
    assert features["position"].numpy().tolist() == [-1, -1]
    assert np.isnan(features["duration"]).all()
    assert features["content"].numpy().tolist() == [[0.0] * 6] * 2
    assert features["watch_history"].shape[0] == 2


def test_splits_are_in_order_of_time(tiny_world: TinyWorld) -> None:
    times = {
        split: np.concatenate(
            [batch["timestamp_micros"] for batch in parsed_dataset(tiny_world.examples, split, tiny_world.config)]
        )
        for split in ("train", "validation", "test")
    }
    for values in times.values():
        assert (np.diff(values) >= 0).all()
    assert times["train"][-1] <= times["validation"][0]
    assert times["validation"][-1] <= times["test"][0]


def _video_rows(dataset: tf.data.Dataset) -> list[list[int]]:
    return [features["video_id"].numpy().tolist() for features, _ in dataset]


def test_a_pass_is_repeatable_and_goes_on_from_any_step(tiny_world: TinyWorld, rows: FeatureRows) -> None:
    first = _video_rows(training_dataset(tiny_world.examples, tiny_world.config, rows, epoch=0))
    assert first == _video_rows(training_dataset(tiny_world.examples, tiny_world.config, rows, epoch=0))
    assert first[3:] == _video_rows(training_dataset(tiny_world.examples, tiny_world.config, rows, 0, skip_steps=3))
    second = _video_rows(training_dataset(tiny_world.examples, tiny_world.config, rows, epoch=1))
    assert first != second
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second))


def test_windows_are_shuffled_and_stay_in_order(tiny_world: TinyWorld, rows: FeatureRows) -> None:
    window, batch = 60, 40
    training = tiny_world.config.training.model_copy(update={"shuffle_window": window, "batch_size": batch})
    config = tiny_world.config.model_copy(update={"training": training})
    in_order = list(itertools.chain(*_video_rows(labelled_dataset(tiny_world.examples, "train", config, rows))))
    batches = _video_rows(training_dataset(tiny_world.examples, config, rows))
    assert {len(values) for values in batches[:-1]} == {batch}
    shuffled = list(itertools.chain(*batches))
    assert len(shuffled) == len(in_order) > 3 * window
    moved = 0
    for first in range(0, len(in_order), window):
        before, after = in_order[first : first + window], shuffled[first : first + window]
        assert sorted(before) == sorted(after)
        moved += sum(one != other for one, other in zip(before, after, strict=True))
    assert moved > 0.5 * len(in_order)


def test_labels_are_nan_where_missing(tiny_world: TinyWorld, rows: FeatureRows) -> None:
    for _, labels in labelled_dataset(tiny_world.examples, "test", tiny_world.config, rows):
        clicked = labels["click"].numpy() == 1
        assert np.isnan(labels["watch_time"].numpy()[~clicked]).all()
        assert np.isfinite(labels["watch_time"].numpy()[clicked]).all()


@pytest.mark.parametrize("correction", ["export", "weights"])
@pytest.mark.parametrize("sample_weight", [None, "importance"])
def test_weights_are_the_product_of_what_the_config_names(
    tmp_path: Path, correction: str, sample_weight: str | None, statistics: Statistics
) -> None:
    raw = small_config() | {"sampling": {"negatives": 0.1, "correction": correction}}
    if sample_weight is not None:
        raw["features"].append({"name": sample_weight, "side": "bias", "kind": "numeric"})
        raw["training"]["sample_weight"] = sample_weight
    config = parse_config(raw)
    columns = {field.name: pa.nulls(3, arrow_type(field)) for field in example_layout(config)}
    columns |= {"sampling_weight": pa.array([10.0, 1.0, 10.0], pa.float32())}
    columns |= {"importance": pa.array([0.5, 2.0, None], pa.float32())}
    (tmp_path / "train").mkdir()
    (tmp_path / "summary.json").write_text("{}")
    content = tfrecord_gzip([encode_examples(example_layout(config), columns)])
    (tmp_path / "train" / "part-00000-of-00001.tfrecord.gz").write_bytes(content)
    (batch,) = labelled_dataset(tmp_path, "train", config, FeatureRows(config, statistics))
    assert sample_weight not in batch[0]
    expected = np.ones(3)
    if correction == "weights":
        expected = expected * [10.0, 1.0, 10.0]
    if sample_weight is not None:
        expected = expected * [0.5, 2.0, 1.0]  # 1 where the impression has none
    assert len(batch) == (2 if (expected == 1).all() else 3)
    if len(batch) == 3:
        np.testing.assert_allclose(batch[2], expected)


def test_folders_that_are_not_examples(tmp_path: Path, tiny_world: TinyWorld) -> None:
    with pytest.raises(InputError, match=r"must be complete.*summary.json in it\. Received: '"):
        split_parts(tmp_path, "train")
    with pytest.raises(InputError, match=r"one of train, validation, test\. Received: 'dev'\.$"):
        split_parts(tiny_world.examples, "dev")
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"split `test` must hold examples\. Received: '.*test' with none\.$"):
        split_parts(tmp_path, "test")
