"""A ranker of one formula, published as `export` publishes one, with a place to plant what must not be published.

click = hour + duration / 2      like = 1 / (1 + duration)      combined_score = click^w0 like^w1
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

CONTRACT: dict[str, Any] = {
    "item_key": "video_id",
    "bias_features": ["position"],
    "objectives": [{"name": "click", "kind": "binary"}, {"name": "like", "kind": "binary"}],
    "combined_score": {"form": "weighted_product"},
}
HOUR, DURATIONS = np.array([3]), np.array([4.0, 0.0, 9.0, 2.5], np.float32)


class Scorer(tf.Module):
    """The ranker.

    Args:
        plant: is given `click` and returns what is served in its place.
        second: name and dtype of the input that `duration` is by right.
        weights: defaults of `score_weights`; None for none.
        contract: what the signature `contract` says; None for no such signature.
    """

    def __init__(
        self,
        plant: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
        second: tuple[str, tf.DType] = ("duration", tf.float32),
        weights: list[float] | None = [1.0, 0.5],  # noqa: B006
        contract: dict[str, Any] | None = CONTRACT,
    ) -> None:
        super().__init__()
        self.slope = tf.Variable(0.5)
        self._plant = plant
        self._contract = None if contract is None else json.dumps(contract)
        self._second = tf.TensorSpec([None], second[1], second[0])
        self._weights = None if weights is None else tf.constant(weights)

    def save(self, folder: Path) -> Path:
        """Writes the SavedModel alone."""
        weights = tf.TensorSpec([None], tf.float32, "score_weights")
        specs = [tf.TensorSpec([1], tf.int64, "hour"), self._second]
        default = self._weights

        def with_default(features: list[tf.Tensor], score_weights: tf.Tensor = default) -> dict[str, tf.Tensor]:
            return self._answers(*features, score_weights)

        def without_default(features: list[tf.Tensor], score_weights: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._answers(*features, score_weights)

        rank = tf.autograph.experimental.do_not_convert(without_default if default is None else with_default)
        signatures = {"rank": tf.function(rank, input_signature=[specs, weights])}
        if self._contract is not None:
            text = self._contract
            signatures["contract"] = tf.function(lambda: {"contract": tf.constant(text)}, input_signature=[])
        tf.saved_model.save(self, str(folder), signatures=signatures)
        return folder

    def _answers(self, hour: tf.Tensor, duration: tf.Tensor, score_weights: tf.Tensor) -> dict[str, tf.Tensor]:
        duration = tf.cast(duration, tf.float32)
        click = self._plant(tf.cast(hour, tf.float32) + self.slope * duration)
        like = 1.0 / (1.0 + duration)
        score = click ** score_weights[0] * like ** score_weights[1]
        ranking = tf.argsort(score, direction="DESCENDING")
        return {"click": click, "like": like, "combined_score": score, "ranking": ranking}


def prediction_log(outputs: dict[str, Any] | None = None, signature: str = "rank", **inputs: Any) -> bytes:
    """A serialized record of a request, with its answer if one is given."""
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    for alias, values in inputs.items():
        log.predict_log.request.inputs[alias].CopyFrom(tf.make_tensor_proto(values))
    for alias, values in (outputs or {}).items():
        log.predict_log.response.outputs[alias].CopyFrom(tf.make_tensor_proto(np.float32(values)))
    return log.SerializeToString()


def expected_answers() -> dict[str, list[float]]:
    """What the formulas give for `HOUR` and `DURATIONS`, candidate by candidate."""
    click = [3 + float(duration) / 2 for duration in DURATIONS]
    like = [1 / (1 + float(duration)) for duration in DURATIONS]
    score = [one * other**0.5 for one, other in zip(click, like, strict=True)]
    return {"click": click, "like": like, "combined_score": score}


def write_records(version: Path, name: str, records: list[bytes]) -> Path:
    """Writes a file of records beside the version."""
    file = version / "assets.extra" / name
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    return file


def publish(folder: Path, scorer: Scorer | None = None) -> Path:
    """The ranker with its warm-up records and answers; those of another input than `duration` would not fit."""
    version = (scorer or Scorer()).save(folder)
    request = {"hour": HOUR, "duration": DURATIONS}
    write_records(
        version, "tf_serving_warmup_requests", [prediction_log(signature="contract"), prediction_log(**request)]
    )
    write_records(version, "training_model_answers", [prediction_log(expected_answers(), **request)])
    return version
