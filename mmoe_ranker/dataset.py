"""From shards of examples to batches for training and evaluation.

Parts of a split are read in their order, which is the order of time (sec. 5.1: the model follows the latest data).
Each window of that order is shuffled, because the impressions of one request would otherwise share a batch.

Shapes: B impressions, L places of a sequence (the longest of the batch).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import SAMPLING_WEIGHT, Field, example_layout, feature_field, label_name
from mmoe_ranker.features import FeatureRows

SPLITS = ("train", "validation", "test")
SUMMARY = "summary.json"

# What stands for a missing value after parsing; the feature layers know these.
MISSING_VALUES = {"bytes": "", "int64": -1, "float": float("nan")}
_DTYPES = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}


def parse_examples(serialized: tf.Tensor, fields: Sequence[Field]) -> dict[str, tf.Tensor]:
    """Parses serialized tf.train.Examples.

    Args:
      serialized: [B] strings.
      fields: what to read, as `examples.example_layout` describes it.

    Returns:
      By field name: [B]; [B, length] for a vector (zeros where missing); [B, L] for a sequence, padded at its end.
    """
    spec: dict[str, tf.io.FixedLenFeature | tf.io.RaggedFeature] = {}
    for field in fields:
        if field.length is None:
            spec[field.name] = tf.io.RaggedFeature(_DTYPES[field.wire], row_splits_dtype=tf.int64)
        elif field.length == 1:
            spec[field.name] = tf.io.FixedLenFeature([], _DTYPES[field.wire], MISSING_VALUES[field.wire])
        else:
            spec[field.name] = tf.io.FixedLenFeature([field.length], _DTYPES[field.wire], [0.0] * field.length)
    parsed = tf.io.parse_example(serialized, spec)
    return {
        field.name: parsed[field.name].to_tensor(MISSING_VALUES[field.wire])
        if field.length is None
        else parsed[field.name]
        for field in fields
    }


def served_features(config: Config, sample: list[bytes]) -> dict[str, tf.Tensor]:
    """The served features [N, ...] of N serialized examples, as `serving_default` takes them."""
    return parse_examples(tf.constant(sample), [feature_field(config, feature) for feature in config.served_features])


def missing_features(config: Config, count: int = 1) -> dict[str, tf.Tensor]:
    """Features, [N, ...] each, of N = `count` impressions about which nothing is known: what any config accepts."""
    fields = [field for field in example_layout(config) if field.role == "feature"]
    return parse_examples(tf.constant([b""] * count), fields)


def split_parts(folder: Path, split: str) -> list[str]:
    """The files of one split, in order.

    Raises:
      InputError: the folder is no complete folder of examples, or the split is unknown or empty.
    """
    if split not in SPLITS:
        raise InputError(f"The split must be one of {', '.join(SPLITS)}. Received: {split!r}.")
    if not (folder / SUMMARY).is_file():
        raise InputError(
            f"The folder of examples must be complete, as `mmoe-ranker examples` leaves it, with {SUMMARY} in it. "
            f"Received: {str(folder)!r}."
        )
    parts = sorted(str(path) for path in (folder / split).glob("part-*.tfrecord.gz"))
    if not parts:
        raise InputError(f"The split `{split}` must hold examples. Received: {str(folder / split)!r} with none.")
    return parts


def serialized_examples(folder: Path, split: str) -> tf.data.Dataset:
    """The serialized examples of a split, one by one, in order of time."""
    return tf.data.TFRecordDataset(split_parts(folder, split), compression_type="GZIP", buffer_size=8 << 20)


def training_dataset(
    folder: Path,
    config: Config,
    rows: FeatureRows,
    epoch: int = 0,
    skip_steps: int = 0,
    replicas: range = range(1),
    num_replicas: int = 1,
) -> tf.data.Dataset:
    """Batches of one chronological pass over the training split, ready for `fit`.

    `(features, labels)`, and `weights` where the config has them: see `weights_of`.

    The order depends on `training.seed` and `epoch` alone, so that a training that was killed goes on with the very
    batch that came next.

    Args:
      folder: of examples.
      config: features, objectives, batch size, shuffle window and seed.
      rows: turns categories into rows of tables.
      epoch: which pass.
      skip_steps: how many batches of the pass are done already.
      replicas: whose parts of each batch are wanted, one after the other.
      num_replicas: into how many parts each batch is split.
    """
    training = config.training
    windows = serialized_examples(folder, "train").batch(training.shuffle_window).enumerate()

    def shuffled(number: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        return tf.random.experimental.stateless_shuffle(window, [training.seed + epoch, number])

    # Window by window and not by `Dataset.shuffle`, which handles every impression by itself.
    batches = windows.map(shuffled).prefetch(1).rebatch(training.batch_size).skip(skip_steps)
    if num_replicas > 1:
        batches = batches.flat_map(
            lambda batch: tf.data.Dataset.from_tensor_slices(list(replicas)).map(
                lambda replica: _part(batch, replica, num_replicas)
            )
        )
    return _labelled(batches, config, rows)


def _part(batch: tf.Tensor, replica: tf.Tensor, num_replicas: int) -> tf.Tensor:
    """One replica's part of a batch; where nothing is left for it, an example without any value or label."""
    part = batch[replica::num_replicas]
    return tf.cond(tf.size(part) > 0, lambda: part, lambda: tf.constant([b""]))


def labelled_dataset(folder: Path, split: str, config: Config, rows: FeatureRows) -> tf.data.Dataset:
    """Batches of a split in order of time, as of `training_dataset`, for `evaluate` or as `validation_data`.

    Args:
      folder: of the examples.
      split: `train`, `validation` or `test`.
      config: features and objectives.
      rows: turns features into rows of tables, on the way.
    """
    return _labelled(serialized_examples(folder, split).batch(config.training.batch_size), config, rows)


def parsed_dataset(folder: Path, split: str, config: Config) -> tf.data.Dataset:
    """Batches of a split in order of time, each a dict of all fields as `parse_examples` returns them.

    Args:
      folder: of the examples.
      split: `train`, `validation` or `test`.
      config: features and objectives.
    """
    fields = example_layout(config)
    batches = serialized_examples(folder, split).batch(config.training.batch_size)
    return batches.map(lambda batch: parse_examples(batch, fields), tf.data.AUTOTUNE).prefetch(2)


def labels_of(parsed: Mapping[str, tf.Tensor], config: Config) -> dict[str, tf.Tensor]:
    """The labels among parsed fields, by objective: [B], NaN where missing."""
    return {name: parsed[label_name(name)] for name in config.objective_names}


def weights_of(parsed: Mapping[str, tf.Tensor], config: Config) -> tf.Tensor | None:
    """The weight of each impression in the losses, [B]; None where the config gives all the same.

    The product of the feature `training.sample_weight`, 1 where an impression has none, and of `sampling_weight`, where
    sampled negatives are to be corrected by weights.
    """
    weights = []
    if config.training.sample_weight is not None:
        weight = parsed[config.training.sample_weight]
        weights.append(tf.where(tf.math.is_nan(weight), 1.0, weight))
    if config.sampling is not None and config.sampling.correction == "weights":
        weights.append(parsed[SAMPLING_WEIGHT])
    return functools.reduce(tf.multiply, weights) if weights else None


def _labelled(batches: tf.data.Dataset, config: Config, rows: FeatureRows) -> tf.data.Dataset:
    fields = [field for field in example_layout(config) if field.role != "meta"]
    names = [feature.name for feature in config.features if feature.name != config.training.sample_weight]

    def convert(batch: tf.Tensor) -> tuple[Any, ...]:
        parsed = parse_examples(batch, fields)
        features, labels = rows({name: parsed[name] for name in names}), labels_of(parsed, config)
        weights = weights_of(parsed, config)
        return (features, labels) if weights is None else (features, labels, weights)

    options = tf.data.Options()
    # Half of the processors: threads of the input that push aside those of a matrix product stall all of the product.
    options.threading.private_threadpool_size = max(1, (os.cpu_count() or 1) // 2)
    return batches.map(convert, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE).with_options(options)
