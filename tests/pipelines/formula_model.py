"""An export whose predictions can be computed by hand, with the signatures that `mmoe-ranker export` gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.serving_signatures import contract_of, feature_specs


class FormulaModel(tf.Module):
    """Predictions from `duration` alone; 20 seconds for an item that has none."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    def save(self, folder: Path, leave_out: str = "") -> Path:
        """Saves it as one version, without the signature `leave_out`."""
        specs = feature_specs(self._config, None)
        text = json.dumps(contract_of(self._config))
        signatures = {
            "serving_default": tf.function(lambda features: outputs(features["duration"]), input_signature=[specs]),
            "serving_examples": tf.function(self._of_examples, input_signature=[tf.TensorSpec([None], tf.string)]),
            "contract": tf.function(lambda: {"contract": tf.constant(text)}, input_signature=[]),
        }
        signatures.pop(leave_out, None)
        tf.saved_model.save(self, str(folder), signatures=signatures)
        return folder

    def _of_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {"duration": tf.io.FixedLenFeature([], tf.float32, np.nan)}
        duration = tf.io.parse_example(examples, spec)["duration"]
        check = tf.debugging.Assert(tf.reduce_all(~tf.math.is_inf(duration)), ["`duration` must be finite."])
        with tf.control_dependencies([check]):
            return outputs(tf.identity(duration))


def outputs(duration: tf.Tensor) -> dict[str, tf.Tensor]:
    """What the model answers, by objective of `small_config`; durations are tens, so that float32 is exact."""
    known = tf.where(tf.math.is_nan(duration), 20.0, duration)
    predictions = {"click": known / 64.0, "watch_time": 2.0 * known, "like": known / 128.0, "dismiss": known / 256.0}
    return {**predictions, "combined_score": known}


def expected_predictions(duration: float | None) -> dict[str, float]:
    """The same in plain Python."""
    known = 20.0 if duration is None else duration
    return {"click": known / 64, "watch_time": 2 * known, "like": known / 128, "dismiss": known / 256}
