"""Early stopping: the validation period after each pass says when to stop, and which pass to keep.

What it knows lives in the checkpoint, as the validation loss in each pass's record, so that a kill at any moment
changes nothing: a pass that was not validated is validated again, from the same weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import SUMMARY, labelled_dataset
from mmoe_ranker.errors import InputError
from mmoe_ranker.model import Ranker
from mmoe_ranker.training_progress import Progress

VALIDATION_LOSS = "validation_loss"


def best_pass(losses: Sequence[float], min_delta: float) -> int:
    """The last pass that lowered the loss of the best before it by more than `min_delta`, counted from 0."""
    best = 0
    for index, loss in enumerate(losses):
        if loss < losses[best] - min_delta:
            best = index
    return best


def check_validation_split(config: Config, examples: Path) -> None:
    """Refuses early stopping without examples to validate on, before anything is trained.

    Raises:
      InputError: the validation split is empty.
    """
    if config.training.early_stopping is not None and not _validation_size(examples):
        raise InputError(
            "`training.early_stopping` needs examples in the validation split: give `split.validation` a share, or "
            f"`split.validation_start` an earlier time, and build the examples again. Received: {str(examples)!r} "
            "with none."
        )


class EarlyStopping:
    """Validates after each pass; without `training.early_stopping` it does nothing and keeps the last pass.

    Args:
      config: section `training.early_stopping`.
      ranker: that trains.
      progress: of the training; its records get the validation losses.
      examples: whose validation split is the period.
      folder: for the weights and slots of the best pass, until the training ends.
    """

    def __init__(self, config: Config, ranker: Ranker, progress: Progress, examples: Path, folder: Path) -> None:
        self._settings = config.training.early_stopping
        self._config = config
        self._ranker = ranker
        self._progress = progress
        self._examples = examples
        self._folder = folder
        self._best = tf.train.Checkpoint(ranker=ranker, optimizer=ranker.optimizer)

    @property
    def kept_pass(self) -> int:
        """Whose weights the training ends with, counted from 0."""
        if self._settings is None:
            return len(self._progress.passes) - 1
        return best_pass(self._losses, self._settings.min_delta)

    @property
    def stops(self) -> bool:
        """Whether the loss has not fallen for as many passes as patience allows."""
        if self._settings is None or not self._losses:
            return False
        return len(self._losses) - 1 - self.kept_pass >= self._settings.patience

    def after_pass(self) -> None:
        """Validates the last pass, unless that is done; keeps its weights if they are the best."""
        passes = self._progress.passes
        if self._settings is None or not passes or VALIDATION_LOSS in passes[-1]:
            return
        passes[-1][VALIDATION_LOSS] = self._validation_loss()
        best = self._folder / f"pass-{self.kept_pass}"
        if self.kept_pass == len(passes) - 1:
            self._best.write(str(best))
        # The best one before is needed until a checkpoint says that it is not.
        self._progress.save()
        for file in self._folder.glob("pass-*"):
            if file.name.partition(".")[0] != best.name:
                file.unlink()

    def restore_best(self) -> None:
        """Makes the best pass's weights and slots those that the training ends with."""
        if self._folder.exists():
            if self.kept_pass != len(self._progress.passes) - 1:
                self._best.read(str(self._folder / f"pass-{self.kept_pass}")).assert_existing_objects_matched()
                self._progress.save()
            shutil.rmtree(self._folder)

    @property
    def _losses(self) -> list[float]:
        return [record[VALIDATION_LOSS] for record in self._progress.passes if VALIDATION_LOSS in record]

    def _validation_loss(self) -> float:
        """The mean over the period's impressions of the loss that training lowers, without dropout."""
        mean = _MeanLoss(_validation_size(self._examples), self._config.training.batch_size)
        dataset = labelled_dataset(self._examples, "validation", self._config, self._ranker.feature_rows)
        self._ranker.evaluate(dataset, verbose=0, callbacks=[mean])
        return mean.total / mean.size


class _MeanLoss(tf.keras.callbacks.Callback):
    """Sums the losses of batches, each times its size: the last batch is smaller."""

    def __init__(self, size: int, batch_size: int) -> None:
        super().__init__()
        self.size = size
        self.total = 0.0
        self._batch_size = batch_size

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.total += float(logs["loss"]) * min(self._batch_size, self.size - batch * self._batch_size)


def _validation_size(examples: Path) -> int:
    summary = json.loads((examples / SUMMARY).read_text(encoding="utf-8"))
    return int(summary["splits"].get("validation", {}).get("examples", 0))
