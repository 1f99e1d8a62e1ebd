"""Export: a trained ranker as a SavedModel that TF Serving loads, published whole or not at all.

A version is built in a folder beside, checked against the trained model, and renamed into place, so that a server which
polls the folder never sees half of one.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import parse_examples
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import feature_field
from mmoe_ranker.model import Ranker
from mmoe_ranker.serving_signatures import (
    COMBINED_SCORE,
    CONTRACT,
    EXAMPLES,
    SCORE_WEIGHTS,
    ServingModule,
)
from mmoe_ranker.workdir import Workdir

TOLERANCE = 1e-5
WARM_UP = "tf_serving_warmup_requests"

# Requests of these sizes warm up the server: a thread pool splits large ones otherwise than small ones.
_WARM_UP_CANDIDATES = (1, 64)


def export(workdir_path: Path, models: Path) -> Path:
    """Publishes the trained ranker of a workdir as the next version under `models`.

    Args:
      workdir_path: of a finished training.
      models: folder of versions; made if missing.

    Returns:
      The published folder, `models/<version>`.

    Raises:
      InputError: the workdir holds no finished training, or the export disagrees with the trained model.
    """
    workdir = Workdir.open(workdir_path)
    config, ranker, sample = workdir.config, workdir.load_ranker(), workdir.sample()
    if models.exists() and not models.is_dir():
        raise InputError(f"The folder of models must be a folder. Received: {str(models)!r}.")
    models.mkdir(parents=True, exist_ok=True)
    # Not a number, so that no server takes it for a version.
    beside = Path(tempfile.mkdtemp(prefix=".export-", dir=models))
    try:
        beside.chmod(0o755)
        module = ServingModule(ranker, config)
        tf.saved_model.save(module, str(beside), signatures=module.signatures())
        check_export(beside, ranker, config, sample)
        extra = beside / "assets.extra"
        extra.mkdir()
        _write_warm_up(extra / WARM_UP, config, sample)
        return _publish(beside, models)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_export(folder: Path, ranker: Ranker, config: Config, sample: list[bytes]) -> None:
    """Asserts that a SavedModel answers as the trained ranker does with its bias features missing.

    Args:
      folder: the SavedModel.
      ranker: the trained ranker.
      config: the config that trained it.
      sample: serialized examples, bias features included: they must make no difference.

    Raises:
      InputError: a bias feature is an input, or an output differs by more than `TOLERANCE`.
    """
    loaded = tf.saved_model.load(str(folder))
    bias = {feature.name for feature in config.side("bias")}
    for name, signature in loaded.signatures.items():
        exposed = bias & set(signature.structured_input_signature[1])
        if exposed:
            raise InputError(f"The signature `{name}` must have no bias feature as input. Received: {sorted(exposed)}.")
    raw = served_features(config, sample)
    expected = ranker(ranker.feature_rows(raw), training=False)
    answers = {
        "serving_default": loaded.signatures["serving_default"](**raw),
        "serving_examples": loaded.signatures["serving_examples"](**{EXAMPLES: tf.constant(sample)}),
    }
    for name, answer in answers.items():
        for objective in config.objective_names:
            _compare(f"{objective} of {name}", answer[objective].numpy(), expected[objective].numpy())
    # One request: the context of the first example with the candidates of all.
    request = rank_inputs(config, raw)
    tiled = {
        name: tf.repeat(values, len(sample), axis=0) if config.feature(name).side == "context" else values
        for name, values in request.items()
    }
    ranked = loaded.signatures["rank"](**request, **{SCORE_WEIGHTS: default_weights(config)})
    for name, values in loaded.signatures["serving_default"](**tiled).items():
        _compare(f"{name} of rank", ranked[name].numpy(), values.numpy())
    order = ranked["ranking"].numpy()
    scores = ranked[COMBINED_SCORE].numpy()[order]
    if (np.diff(scores) > TOLERANCE * np.maximum(1.0, np.abs(scores[1:]))).any():
        raise InputError(f"`ranking` must order candidates by combined score, best first. Received: {order.tolist()}.")


def served_features(config: Config, sample: list[bytes]) -> dict[str, tf.Tensor]:
    """The served features of serialized examples, as `serving_default` takes them."""
    return parse_examples(tf.constant(sample), [feature_field(config, feature) for feature in config.served_features])


def rank_inputs(config: Config, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """One request made of served features: the context of the first row, the candidates of all."""
    return {name: values[:1] if config.feature(name).side == "context" else values for name, values in raw.items()}


def default_weights(config: Config) -> tf.Tensor:
    """The config's weights, [T], 0 for an objective without a term."""
    terms = config.combined_score.terms
    return tf.constant([terms[name].weight if name in terms else 0.0 for name in config.objective_names], tf.float32)


def _compare(what: str, received: np.ndarray, expected: np.ndarray) -> None:
    # Absolute for probabilities, relative for values in seconds.
    difference = np.max(np.abs(received - expected) / np.maximum(1.0, np.abs(expected)), initial=0.0)
    if not difference <= TOLERANCE:
        raise InputError(
            f"The exported model must answer as the trained one, to {TOLERANCE} in {what}. Received: {difference:.2e}."
        )


def _warm_up_requests(config: Config, sample: list[bytes]) -> Iterator[tuple[str, dict[str, tf.Tensor]]]:
    yield CONTRACT, {}
    for count in _WARM_UP_CANDIDATES:
        examples = (sample * (count // len(sample) + 1))[:count]
        raw = served_features(config, examples)
        yield "serving_default", raw
        yield "rank", rank_inputs(config, raw)
        yield "serving_examples", {EXAMPLES: tf.constant(examples)}


def _write_warm_up(file: Path, config: Config, sample: list[bytes]) -> None:
    # Imported here: it takes seconds, and only an export needs it.
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, inputs in _warm_up_requests(config, sample):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = config.name
            request.model_spec.signature_name = signature
            for name, values in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def _publish(beside: Path, models: Path) -> Path:
    while True:
        versions = [int(entry.name) for entry in models.iterdir() if entry.name.isdecimal()]
        # The time, so that a version that was removed never comes again with other contents.
        target = models / str(max([int(time.time()), *(version + 1 for version in versions)]))
        try:
            beside.rename(target)
        except OSError:
            if not target.exists():
                raise
            continue  # another export took this number
        return target
