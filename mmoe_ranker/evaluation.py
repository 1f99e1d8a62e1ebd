"""Runs a trained ranker over a split it did not train on, as it will be served: position missing.

`predict` gives the predictions, `evaluation_metrics` says how good they are, `learned_bias` what the shallow tower took
out of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mmoe_ranker import metrics
from mmoe_ranker.bounded_predictions import BoundedPredictions
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.config_matching import check_built_with
from mmoe_ranker.dataset import labels_of, parsed_dataset, split_parts
from mmoe_ranker.errors import InputError
from mmoe_ranker.evaluation_metrics import evaluate
from mmoe_ranker.evaluation_rows import slice_names
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID
from mmoe_ranker.model import Ranker
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.saved_evaluation import save_evaluation
from mmoe_ranker.workdir import CONFIG, Workdir


def predict(ranker: Ranker, examples: Path, split: str, config: Config) -> Predictions:
    """Predicts every impression of a split; beyond `bounded_predictions.MAX_ROWS`, keeps a sample and totals.

    Args:
      ranker: trained.
      examples: folder of examples.
      split: `train`, `validation` or `test`.
      config: the config that trained.

    Raises:
      InputError: a file of the split is damaged.
    """
    served = [feature.name for feature in config.served_features]
    bias = config.model.bias
    biasing = list(bias.features) if bias.kind in ("shallow_tower", "anchored", "input_feature") else []
    kept = [REQUEST_ID, ITEM_ID, *(feature.name for feature in config.features if feature.kind == "categorical")]
    kept = list(dict.fromkeys([*kept, *slice_names(config)]))
    objectives = config.objective_names

    @tf.function(reduce_retracing=True)
    def forward(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = ranker(ranker.feature_rows(features), training=False)
        return {name: outputs[name] for name in (*objectives, "gates") if name in outputs}

    @tf.function(reduce_retracing=True)
    def forward_seen(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = ranker(ranker.feature_rows(features), training=False)
        return {name: outputs[name] for name in objectives}

    bounded = BoundedPredictions(config)
    health = metrics.ExpertHealthTotals(getattr(config.model.sharing, "objective_experts", 0))
    dataset = parsed_dataset(examples, split, config)
    for parsed in tqdm(_whole(dataset, split), desc=f"predict {split}", unit=" batches", leave=False, disable=None):
        outputs = forward({name: parsed[name] for name in served})
        if (gates := outputs.pop("gates", None)) is not None:
            health.update(gates.numpy())
        seen = forward_seen({name: parsed[name] for name in {*served, *biasing}}) if biasing else {}
        floats = [
            {name: tensor.numpy().astype(np.float64) for name, tensor in part.items()}
            for part in (outputs, labels_of(parsed, config), seen)
        ]
        columns = {name: _column(parsed[name]).numpy() for name in kept}
        bounded.add(Predictions(floats[0], floats[1], columns, seen=floats[2] or None))
    mixes = config.model.sharing.kind != "shared_bottom"
    return dataclasses.replace(bounded.result(), expert_health=health.result() if mixes else None)


def _whole(dataset: tf.data.Dataset, split: str) -> Iterator[Mapping[str, tf.Tensor]]:
    try:
        yield from dataset
    except tf.errors.DataLossError as error:
        received = " ".join(str(error).split())[:300]
        raise InputError(f"A file of the `{split}` split is damaged; make it again. Received: {received}.") from error


def _column(values: tf.Tensor) -> tf.Tensor:
    """A column as it is, [B]; of sequences, [B, L], the length of each."""
    if values.shape.rank == 1:
        return values
    missing = tf.constant("" if values.dtype == tf.string else -1, values.dtype)
    return tf.reduce_sum(tf.cast(values != missing, tf.int64), axis=1)


def evaluate_workdir(workdir_path: Path, examples: Path, split: str) -> dict[str, Any]:
    """The report of a finished training on a split of examples, with the learned bias beside it.

    It is kept in the workdir with the predictions, for those who look at them later (`saved_evaluation`).

    Args:
      workdir_path: of the finished training.
      examples: folder of examples.
      split: `train`, `validation` or `test`.

    Raises:
      InputError: the workdir holds no finished training, or the split no examples.
    """
    split_parts(examples, split)
    workdir = Workdir.open(workdir_path)
    config = workdir.config
    check_built_with(config, load_config(examples / CONFIG), examples)
    ranker = workdir.load_ranker()
    predictions = predict(ranker, examples, split, config)
    report = {"split": split} | evaluate(predictions, config) | {"learned_bias": learned_bias(ranker)}
    save_evaluation(workdir_path, examples, predictions, report)
    return report


def learned_bias(ranker: Ranker) -> list[dict[str, Any]]:
    """What the shallow tower learned: its logit for every combination of values of its features (fig. 7).

    Returns:
      A row a combination: each feature's value (None where missing) and each biased objective's logit. Empty without
      a shallow tower, and for combinations of more than 10,000 values.
    """
    tower = ranker.bias.tower
    if tower is None:
        return []
    names = list(tower.num_rows)
    values = {name: ranker.feature_rows.rows[name].values() for name in names}
    if math.prod(len(values[name]) for name in names) > _MAX_BIAS_ROWS:
        return []
    combinations = list(itertools.product(*(values[name] for name in names)))
    rows = {
        name: tf.constant([combination[index][0] for combination in combinations], tf.int32)
        for index, name in enumerate(names)
    }
    logits = tower(rows, training=False).numpy()  # [combinations, K]
    return [
        {name: value for name, (_, value) in zip(names, combination, strict=True)}
        | {name: float(logit) for name, logit in zip(ranker.bias.objectives, row, strict=True)}
        for combination, row in zip(combinations, logits, strict=True)
    ]


_MAX_BIAS_ROWS = 10_000
