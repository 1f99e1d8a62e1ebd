"""How far a training is: pass, step and weights in one checkpoint, from which a killed run goes on as if unbroken."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from mmoe_ranker.model import Ranker

_KEPT_CHECKPOINTS = 2


class Progress:
    """How far a training is, saved with the weights in one checkpoint, so that the two can never disagree.

    Args:
      ranker: compiled; its weights and its optimiser's slots are saved.
      folder: of the checkpoints.
      steps_per_epoch: how many batches a pass has.
    """

    def __init__(self, ranker: Ranker, folder: Path, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.step = tf.Variable(0, dtype=tf.int64)  # of the epoch
        checkpoint = tf.train.Checkpoint(ranker=ranker, optimizer=ranker.optimizer, epoch=self.epoch, step=self.step)
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=_KEPT_CHECKPOINTS)

    @property
    def total_steps(self) -> int:
        """Steps done since the training began."""
        return int(self.epoch) * self.steps_per_epoch + int(self.step)

    def restore(self) -> None:
        """Goes to where the newest checkpoint is; without one, saves the first."""
        self._manager.restore_or_initialize()

    def save(self) -> None:
        """Writes a checkpoint; the one before stays until it is whole."""
        self._manager.save()
