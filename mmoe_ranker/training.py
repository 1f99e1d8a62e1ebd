"""Training: chronological passes from shards, with checkpoints from which a killed run goes on as if nothing had been.

Reads like its own table of contents: `train`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import training_dataset
from mmoe_ranker.errors import InputError
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import composite_optimizer
from mmoe_ranker.statistics import Statistics
from mmoe_ranker.workdir import CHECKPOINTS, Workdir

_KEPT_CHECKPOINTS = 2
# How often the progress bar and TensorBoard are given the metrics of the steps between.
_REPORT_STEPS = 20


def train(config: Config, examples: Path, workdir_path: Path) -> dict[str, Any]:
    """Trains a ranker on a folder of examples; goes on where an earlier call for the same workdir was stopped.

    Args:
      config: features, objectives, model, training.
      examples: folder that `mmoe-ranker examples` wrote.
      workdir_path: where checkpoints, logs and the result go.

    Returns:
      The result, as written to `training.json`: epochs, steps, examples per second, metrics of the last pass.

    Raises:
      InputError: examples or workdir are not what they should be, or the loss is not finite.
    """
    workdir = Workdir.create(workdir_path, config, examples)
    if workdir.result is not None:
        return workdir.result
    set_seeds(config.training.seed)
    ranker = workdir.build_ranker()
    ranker.compile(optimizer=composite_optimizer(ranker, config.training))
    steps = math.ceil(Statistics.load(workdir_path).num_examples / config.training.batch_size)
    progress = _Progress(ranker, workdir_path / CHECKPOINTS)
    progress.restore()
    callbacks = [
        _GuardLoss(),
        _SaveProgress(progress, steps, config.training.checkpoint_steps),
        tf.keras.callbacks.TensorBoard(workdir_path / "logs", update_freq=_REPORT_STEPS, profile_batch=0),
        _ProgressBar(config, steps, progress),
    ]
    started, first_step, metrics = time.perf_counter(), progress.total_steps(steps), {}
    while (epoch := int(progress.epoch)) < config.training.epochs:
        dataset = training_dataset(examples, config, ranker.feature_rows, epoch, int(progress.step))
        history = ranker.fit(dataset, initial_epoch=epoch, epochs=epoch + 1, verbose=0, callbacks=callbacks)
        metrics = {name: float(values[-1]) for name, values in history.history.items()}
    seconds, done = time.perf_counter() - started, progress.total_steps(steps)
    result = {
        "epochs": config.training.epochs,
        "steps": done,
        "examples_per_second": round((done - first_step) * config.training.batch_size / seconds, 1),
        "metrics": metrics,
    }
    workdir.write_result(result)
    return result


def set_seeds(seed: int) -> None:
    """Seeds Python, numpy and TensorFlow, so that a training is the same whenever it is repeated."""
    tf.keras.utils.set_random_seed(seed)
    # Dropout with a generator of its own, whose state checkpoints keep.
    tf.keras.backend.experimental.enable_tf_random_generator()


class _Progress:
    """How far a training is, saved with the weights in one checkpoint, so that the two can never disagree."""

    def __init__(self, ranker: Ranker, folder: Path) -> None:
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.step = tf.Variable(0, dtype=tf.int64)  # of the epoch
        checkpoint = tf.train.Checkpoint(ranker=ranker, optimizer=ranker.optimizer, epoch=self.epoch, step=self.step)
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=_KEPT_CHECKPOINTS)

    def restore(self) -> None:
        self._manager.restore_or_initialize()

    def save(self) -> None:
        self._manager.save()

    def total_steps(self, steps_per_epoch: int) -> int:
        return int(self.epoch) * steps_per_epoch + int(self.step)


class _SaveProgress(tf.keras.callbacks.Callback):
    """Counts steps and saves a checkpoint every so many, and at the end of each pass."""

    def __init__(self, progress: _Progress, steps_per_epoch: int, checkpoint_steps: int) -> None:
        super().__init__()
        self._progress = progress
        self._steps_per_epoch = steps_per_epoch
        self._checkpoint_steps = checkpoint_steps
        # Keras hands over the metrics as they are on the device; this callback does not look at them.
        self._supports_tf_logs = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._progress.step.assign_add(1)
        step = int(self._progress.step)
        if step % self._checkpoint_steps == 0 and step < self._steps_per_epoch:
            self._progress.save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if int(self._progress.step) != self._steps_per_epoch:
            raise InputError(
                f"The training split must have as many batches as its statistics say ({self._steps_per_epoch}). "
                f"Received: {int(self._progress.step)}."
            )
        self._progress.step.assign(0)
        self._progress.epoch.assign_add(1)
        self._progress.save()


class _GuardLoss(tf.keras.callbacks.Callback):
    """Stops with a sentence when the loss is not finite, before a checkpoint of it is saved."""

    def __init__(self) -> None:
        super().__init__()
        self._supports_tf_logs = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise InputError(
                "The training loss must stay finite: lower `training.optimizer.learning_rate`, or look for extreme "
                f"values among numeric features and labels. Received: {loss} at step {batch} of the pass."
            )


class _ProgressBar(tf.keras.callbacks.Callback):
    """A bar on a terminal, with losses, AUC and examples per second."""

    def __init__(self, config: Config, steps_per_epoch: int, progress: _Progress) -> None:
        super().__init__()
        self._training = config.training
        self._names = [f"{name}_{metric}" for name in config.objective_names for metric in ("auc", "loss")]
        self._steps_per_epoch = steps_per_epoch
        self._progress = progress
        self._bar: tqdm | None = None
        self._supports_tf_logs = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._bar = tqdm(
            total=self._steps_per_epoch * self._training.batch_size,
            initial=int(self._progress.step) * self._training.batch_size,
            desc=f"train, pass {epoch + 1} of {self._training.epochs}",
            unit=" examples",
            unit_scale=True,
            disable=None,  # unless on a terminal
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._bar is not None:
            if batch % _REPORT_STEPS == 0:
                self._bar.set_postfix_str(self._metrics(logs), refresh=False)
            self._bar.update(self._training.batch_size)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._metrics(logs))
            self._bar.close()

    def _metrics(self, logs: Any) -> str:
        return " ".join(f"{name} {float(logs[name]):.4f}" for name in self._names if name in logs)
