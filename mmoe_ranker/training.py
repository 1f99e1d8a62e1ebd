"""Training: chronological passes from shards, with checkpoints from which a killed run goes on as if nothing had been.

Reads like its own table of contents: `train`. How far it is, is in `training_progress`; what happens between steps, in
`training_callbacks`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import training_dataset
from mmoe_ranker.incremental import carry_over, open_start
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import composite_optimizer
from mmoe_ranker.statistics import Statistics
from mmoe_ranker.training_callbacks import REPORT_STEPS, GuardLoss, ProgressBar, SaveProgress
from mmoe_ranker.training_progress import Progress
from mmoe_ranker.workdir import CHECKPOINTS, Workdir


def train(config: Config, examples: Path, workdir_path: Path, start_from: Path | None = None) -> dict[str, Any]:
    """Trains a ranker on a folder of examples; goes on where an earlier call for the same workdir was stopped.

    Args:
      config: features, objectives, model, training.
      examples: folder that `mmoe-ranker examples` wrote.
      workdir_path: where checkpoints, logs and the result go.
      start_from: workdir of a finished training that this one goes on from, on newer examples (`incremental`).

    Returns:
      The result, as written to `training.json`: epochs, steps, examples per second, metrics of the last pass.

    Raises:
      InputError: examples or workdir are not what they should be, or the loss is not finite.
    """
    start = open_start(start_from, config) if start_from is not None else None
    workdir = Workdir.create(workdir_path, config, examples, start)
    if workdir.result is not None:
        return workdir.result
    set_seeds(config.training.seed)
    steps = _steps_per_epoch(workdir_path, config)
    if start is not None:
        carry_over(start, workdir, steps)
    ranker = _compiled_ranker(workdir, config)
    progress = Progress(ranker, workdir_path / CHECKPOINTS, steps)
    progress.restore()
    callbacks = [
        GuardLoss(),
        SaveProgress(progress, config.training.checkpoint_steps),
        tf.keras.callbacks.TensorBoard(workdir_path / "logs", update_freq=REPORT_STEPS, profile_batch=0),
        ProgressBar(config, progress),
    ]
    started, first_step, metrics = time.perf_counter(), progress.total_steps, {}
    while (epoch := int(progress.epoch)) < config.training.epochs:
        dataset = training_dataset(examples, config, ranker.feature_rows, epoch, int(progress.step))
        history = ranker.fit(dataset, initial_epoch=epoch, epochs=epoch + 1, verbose=0, callbacks=callbacks)
        metrics = {name: float(values[-1]) for name, values in history.history.items()}
    seconds, done = time.perf_counter() - started, progress.total_steps
    result = {
        "epochs": config.training.epochs,
        "steps": done,
        "examples_per_second": round((done - first_step) * config.training.batch_size / seconds, 1),
        "metrics": metrics,
    }
    if workdir.started_from is not None:
        result["started_from"] = workdir.started_from
    workdir.write_result(result)
    return result


def set_seeds(seed: int) -> None:
    """Seeds Python, numpy and TensorFlow, so that a training is the same whenever it is repeated."""
    tf.keras.utils.set_random_seed(seed)
    # Dropout with a generator of its own, whose state checkpoints keep.
    tf.keras.backend.experimental.enable_tf_random_generator()


def _compiled_ranker(workdir: Workdir, config: Config) -> Ranker:
    ranker = workdir.build_ranker()
    ranker.compile(optimizer=composite_optimizer(ranker, config.training))
    return ranker


def _steps_per_epoch(workdir_path: Path, config: Config) -> int:
    return math.ceil(Statistics.load(workdir_path).num_examples / config.training.batch_size)
