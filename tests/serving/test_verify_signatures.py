"""What `verify` finds in signatures: inputs, defaults, shapes and orders that no client could use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.serving.scorers import (
    Scorer,
    publish,
)
from tests.serving.spoilt_versions import failed, findings, planted, rewrite


def test_a_bias_feature_among_the_inputs_and_of_a_wrong_type(tmp_path: Path) -> None:
    found = planted(tmp_path, second=("position", tf.float64))
    assert found["bias_inputs"] == "The bias feature `position` is an input of `rank`."
    assert found["input_types"] == "The input `position` of `rank` is double, and must be float, int64 or string."
    # What was recorded for `duration` fits no more.
    assert "input size does not match signature" in found["warm_up"] or "not found in request" in found["warm_up"]
    assert "training_answers (rank)" in found


def test_a_bias_feature_that_is_read_from_examples(tmp_path: Path) -> None:
    def plant(click: tf.Tensor) -> tf.Tensor:
        layout = {"position": tf.io.FixedLenFeature([], tf.int64, 0), "hour": tf.io.FixedLenFeature([], tf.int64, 0)}
        parsed = tf.io.parse_example(tf.fill(tf.shape(click), b""), layout)
        return click + tf.cast(parsed["position"], tf.float32)

    assert planted(tmp_path, plant=plant) == {
        "bias_inputs": "The bias feature `position` is read from serialized examples."
    }


def test_a_version_that_does_not_say_what_a_bias_is(tmp_path: Path) -> None:
    found = findings(Scorer(contract=None).save(tmp_path / "1"))
    assert {name for name, finding in found.items() if finding.status == "skipped"} == {
        *("bias_inputs", "compatibility", "training_answers", "warm_up"),
    }
    assert found["signature (rank)"].sentence == "`rank` answers requests of 0, 1, 2, 65, 300 rows, made of its types."


def test_weights_without_a_default(tmp_path: Path) -> None:
    found = planted(tmp_path, weights=None)
    assert "`score_weights` of `rank` has no default" in found["defaults"]


def test_weights_of_another_number_than_the_objectives(tmp_path: Path) -> None:
    found = planted(tmp_path, weights=[1.0, 0.5, 0.1])
    assert "`score_weights` of `rank` does not hold one weight for each objective" in found["defaults"]


def test_a_default_of_another_type_and_of_no_input(version: Path) -> None:
    def spoil(saved_model: saved_model_pb2.SavedModel) -> None:
        defaults = saved_model.meta_graphs[0].signature_def["rank"].defaults
        defaults["score_weights"].CopyFrom(tf.make_tensor_proto([1, 2]))
        defaults["age"].CopyFrom(tf.make_tensor_proto([1.0]))

    rewrite(version, spoil)
    sentence = failed(version)["defaults"]
    assert "The default `age` of `rank` is of no input" in sentence
    assert "The default of `score_weights` of `rank` is not of the input's type and shape" in sentence


def _refuse_many(click: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.assert_less(tf.size(click), 65, message="too many")]):
        return tf.identity(click)


def _pair(click: tf.Tensor) -> tf.Tensor:
    return tf.concat([click, click], 0)


def _divide(click: tf.Tensor) -> tf.Tensor:
    return click / 0.0


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (_refuse_many, "`rank` fails for 65 rows of values recorded beside it: INVALID_ARGUMENT: "),
        (_divide, "The output `click` is not finite on recorded values"),
        (_pair, "The output `click` has the shape [2] instead of [1] for 1 rows"),
    ],
)
def test_a_signature_that_answers_wrongly(
    tmp_path: Path, plant: Callable[[tf.Tensor], tf.Tensor], sentence: str
) -> None:
    assert sentence in planted(tmp_path, plant=plant)["signature (rank)"]


def test_outputs_that_are_not_what_the_signature_says(version: Path) -> None:
    def spoil(saved_model: saved_model_pb2.SavedModel) -> None:
        outputs = saved_model.meta_graphs[0].signature_def["rank"].outputs
        # The order taken for the scores, and the other way round, as an export might that mixes up names.
        names = outputs["ranking"].name, outputs["combined_score"].name
        outputs["combined_score"].name, outputs["ranking"].name = names
        outputs["like"].tensor_shape.dim.add(size=2)

    rewrite(version, spoil)
    sentence = failed(version)["signature (rank)"]
    assert "The output `combined_score` is of another type than the signature says" in sentence
    assert "The output `like` has the shape [0] instead of [0, 2] for 0 rows" in sentence


def test_a_ranking_that_is_no_order_of_the_scores(version: Path) -> None:
    def spoil(saved_model: saved_model_pb2.SavedModel) -> None:
        outputs = saved_model.meta_graphs[0].signature_def["rank"].outputs
        outputs["combined_score"].name = outputs["like"].name

    rewrite(version, spoil)
    found = failed(version)
    assert "`ranking` does not order the candidates by `combined_score`, best first" in found["signature (rank)"]
    assert "`combined_score` of `rank` differs from the training model's" in found["training_answers (rank)"]


def test_an_order_of_small_scores_that_is_none(tmp_path: Path) -> None:
    # Clicks in the order of another score, all of them smaller than what scores near 1 may differ by.
    version = publish(tmp_path / "1", Scorer(lambda click: click * 1e-7))

    def spoil(saved_model: saved_model_pb2.SavedModel) -> None:
        outputs = saved_model.meta_graphs[0].signature_def["rank"].outputs
        outputs["combined_score"].name = outputs["click"].name

    assert "signature (rank)" not in failed(version)
    rewrite(version, spoil)
    assert "`ranking` does not order the candidates by `combined_score`" in failed(version)["signature (rank)"]
