"""Training: chronological passes from shards, with checkpoints from which a killed run goes on as if nothing had been.

Reads like its own table of contents: `train`. How far it is, is in `training_progress`; what happens between steps, in
`training_callbacks` and `training_guards`; between passes, in `early_stopping`; before the first, in `incremental`.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import training_dataset
from mmoe_ranker.distribution import open_distribution
from mmoe_ranker.early_stopping import EarlyStopping, check_validation_split
from mmoe_ranker.expert_history import ExpertHistory
from mmoe_ranker.incremental import carry_over, open_start
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import compile_ranker
from mmoe_ranker.statistics import Statistics
from mmoe_ranker.training_callbacks import ProgressBar, SaveProgress, StepSummaries
from mmoe_ranker.training_guards import Guards
from mmoe_ranker.training_progress import Progress
from mmoe_ranker.workdir import BEST, CHECKPOINTS, RESULT, Workdir


def train(
    config: Config,
    examples: Path,
    workdir_path: Path,
    start_from: Path | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Trains a ranker on a folder of examples; goes on where an earlier call for the same workdir was stopped.

    Args:
      config: features, objectives, model, training.
      examples: folder that `mmoe-ranker examples` wrote.
      workdir_path: where checkpoints, logs and the result go.
      start_from: workdir of a finished training that this one goes on from, on newer examples (`incremental`).
      callbacks: called after those of the training itself: a pass is saved before they see its end.

    Returns:
      The result, as written to `training.json`: passes and steps done, examples per second, each pass's metrics and
      validation loss, which pass was kept, its metrics, the folder of examples, and what the gates did with the
      experts (`expert_history`).

    Raises:
      InputError: examples, workdir or start are not what they should be, or a guard stopped it (`training_guards`).
    """
    start = open_start(start_from, config) if start_from is not None else None
    check_validation_split(config, examples)
    distribution = open_distribution(config.training)
    if distribution.serve_until(workdir_path / RESULT):
        return Workdir(workdir_path).result or {}
    with distribution.chief_first():
        workdir = Workdir.create(workdir_path, config, examples, start)
        steps, checkpoints = _steps_per_epoch(workdir_path, config), workdir_path / CHECKPOINTS
        if start is not None and workdir.result is None:
            set_seeds(config.training.seed)
            carry_over(start, workdir, steps)
    if workdir.result is not None:
        return workdir.result
    set_seeds(config.training.seed)
    with distribution.scope():
        ranker = _compiled_ranker(workdir, config)
    progress = Progress(ranker, distribution.save_folder(checkpoints), steps)
    progress.restore(checkpoints)
    stopping = EarlyStopping(config, ranker, progress, examples, workdir_path / BEST)
    experts = ExpertHistory(config, ranker, progress, workdir)
    all_callbacks = [
        Guards(config, ranker, progress, workdir),
        experts,
        SaveProgress(progress, config.training.checkpoint_steps),
        StepSummaries(workdir_path / "logs"),
        ProgressBar(config, progress),
        *callbacks,
    ]
    started, first_step = time.perf_counter(), progress.total_steps
    stopping.after_pass()  # of a run that was killed while it validated
    while (epoch := int(progress.epoch)) < config.training.epochs and not stopping.stops:
        step = int(progress.step)
        batches = functools.partial(training_dataset, examples, config, ranker.feature_rows, epoch, step)
        distribution.fit(ranker, batches, epoch, range(step, steps), all_callbacks)
        stopping.after_pass()
    stopping.restore_best()
    seconds = time.perf_counter() - started
    result = {
        "epochs": int(progress.epoch),
        "steps": progress.total_steps,
        "examples_per_second": round((progress.total_steps - first_step) * config.training.batch_size / seconds, 1),
        "kept_pass": stopping.kept_pass + 1,
        "metrics": progress.passes[stopping.kept_pass]["metrics"],
        "passes": progress.passes,
        "started_from": workdir.started_from,
        "experts": experts.result,
        "examples": str(examples.resolve()),
    }
    if distribution.is_chief:
        workdir.write_result(result)
    return result


def set_seeds(seed: int) -> None:
    """Seeds Python, numpy and TensorFlow, so that a training is the same whenever it is repeated."""
    tf.keras.utils.set_random_seed(seed)
    # Dropout with a generator of its own, whose state checkpoints keep.
    tf.keras.backend.experimental.enable_tf_random_generator()


def _compiled_ranker(workdir: Workdir, config: Config) -> Ranker:
    ranker = workdir.build_ranker(config.training.precision)
    compile_ranker(ranker, config.training)
    return ranker


def _steps_per_epoch(workdir_path: Path, config: Config) -> int:
    return math.ceil(Statistics.load(workdir_path).num_examples / config.training.batch_size)
