"""Export: a trained ranker as a SavedModel that TF Serving loads, published whole or not at all.

A version is built in a folder beside, has to pass a gate, and is renamed into place, so that a server which polls the
folder never sees half of one. Beside the version lie what the trained ranker answers to some requests, so that whoever
has the version can hold it against them, and requests that warm up a server.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.config import Config
from mmoe_ranker.dataset import served_features
from mmoe_ranker.errors import InputError
from mmoe_ranker.model import Ranker
from mmoe_ranker.serving_signatures import (
    COMBINED_SCORE,
    CONTRACT,
    EXAMPLES,
    ServingModule,
)
from mmoe_ranker.workdir import Workdir

WARM_UP = "tf_serving_warmup_requests"
ANSWERS = "training_model_answers"

Gate: TypeAlias = Callable[[Path, Path | None], None]
# A signature, its inputs, and the outputs that are expected of it, if any.
_Log: TypeAlias = tuple[str, Mapping[str, Any], Mapping[str, Any]]
_BESIDE = ".export-"

# Requests of these sizes warm up the server: TensorFlow compiles its products anew for each size, and large ones are
# split over threads otherwise than small ones.
_WARM_UP_CANDIDATES = (1, 64, 300)


def export(workdir_path: Path, models: Path, gate: Gate) -> Path:
    """Publishes the trained ranker of a workdir as the next version under `models`.

    Args:
      workdir_path: of a finished training.
      models: folder of versions; made if missing.
      gate: is given the version, not yet published, and the one published last, if any; it raises where the version
        must not be published. `serving.verifying.verification.gate` holds it against the answers of the trained
        ranker, which lie beside it, in TF Serving's C++ session.

    Returns:
      The published folder, `models/<version>`.

    Raises:
      InputError: the workdir holds no finished training, or the gate refuses the version.
    """
    workdir = Workdir.open(workdir_path)
    config, ranker, sample = workdir.config, workdir.load_ranker(), workdir.sample()
    if models.exists() and not models.is_dir():
        raise InputError(f"The folder of models must be a folder. Received: {str(models)!r}.")
    models.mkdir(parents=True, exist_ok=True)
    with _folder_beside(models) as beside:
        module = ServingModule(ranker, config)
        tf.saved_model.save(module, str(beside), signatures=module.signatures())
        extra = beside / "assets.extra"
        extra.mkdir()
        _write_logs(extra / WARM_UP, config, _warm_up_requests(config, sample))
        _write_logs(extra / ANSWERS, config, _training_answers(ranker, config, sample))
        published = {version: path for version, path in _numbered(models) if path.is_dir()}
        gate(beside, published[max(published)] if published else None)
        return _publish(beside, models)


def rank_inputs(config: Config, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """One request made of served features [N, ...]: the context of the first row [1, ...], the candidates of all."""
    return {name: values[:1] if config.feature(name).side == "context" else values for name, values in raw.items()}


def _warm_up_requests(config: Config, sample: list[bytes]) -> Iterator[_Log]:
    yield CONTRACT, {}, {}
    for count in _WARM_UP_CANDIDATES:
        examples = (sample * (count // len(sample) + 1))[:count]
        raw = served_features(config, examples)
        yield "serving_default", raw, {}
        yield "rank", rank_inputs(config, raw), {}
        yield "serving_examples", {EXAMPLES: tf.constant(examples)}, {}


def _training_answers(ranker: Ranker, config: Config, sample: list[bytes]) -> Iterator[_Log]:
    """Requests with what the ranker predicts; the examples hold bias features, which must make no difference."""
    raw = served_features(config, sample)
    yield "serving_default", raw, _answers(ranker, config, raw)
    yield "serving_examples", {EXAMPLES: tf.constant(sample)}, _answers(ranker, config, raw)
    # One request: the context of the first example with the candidates of all.
    request = rank_inputs(config, raw)
    tiled = {
        name: tf.repeat(values, len(sample), axis=0) if config.feature(name).side == "context" else values
        for name, values in request.items()
    }
    yield "rank", request, _answers(ranker, config, tiled)


def _answers(ranker: Ranker, config: Config, raw: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    predicted = ranker(ranker.feature_rows(raw), training=False)
    answers = {name: predicted[name].numpy() for name in config.objective_names}
    score = CombinedScore.from_terms(config.objective_names, config.combined_score.form, config.combined_score.terms)
    return answers | {COMBINED_SCORE: score.score(answers).astype(np.float32)}


def _write_logs(file: Path, config: Config, logs: Iterable[_Log]) -> None:
    # Imported here: it takes seconds, and only an export needs it.
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, inputs, outputs in logs:
            log = prediction_log_pb2.PredictLog(request=predict_pb2.PredictRequest())
            log.request.model_spec.name = config.name
            log.request.model_spec.signature_name = signature
            for name, values in inputs.items():
                log.request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
            for name, values in outputs.items():
                log.response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


@contextlib.contextmanager
def _folder_beside(models: Path) -> Iterator[Path]:
    """A folder to write a version in, removed unless it is renamed; what killed exports left is removed first.

    Whoever writes holds a lock on the folder, which ends with the process however that ends. The lock on `models`
    keeps others from seeing the folder while it is there and not yet locked.
    """
    with contextlib.ExitStack() as writing:
        with _locked(models):
            for left in models.glob(f"{_BESIDE}*"):
                _remove_abandoned(left)
            # Not a number, so that no server takes it for a version.
            beside = Path(tempfile.mkdtemp(prefix=_BESIDE, dir=models))
            writing.callback(shutil.rmtree, beside, ignore_errors=True)
            writing.enter_context(_locked(beside))
        beside.chmod(0o755)
        yield beside


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems know no locks; there nobody removes what others left.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is locked, or gone, or nobody can lock here
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _numbered(models: Path) -> Iterator[tuple[int, Path]]:
    # Of two names of one number, the last is the one that a server takes.
    for entry in sorted(models.iterdir()):
        if re.fullmatch(r"[0-9]+", entry.name):
            yield int(entry.name), entry


def _publish(beside: Path, models: Path) -> Path:
    while True:
        # The time, so that a version that was removed never comes again with other contents.
        target = models / str(max([int(time.time()), *(version + 1 for version, _ in _numbered(models))]))
        try:
            beside.rename(target)
        except OSError:
            if not target.exists():
                raise
            continue  # another export took this number
        return target
