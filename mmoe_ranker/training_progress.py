"""How far a training is: pass, step and weights in one checkpoint, from which a killed run goes on as if unbroken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from mmoe_ranker.errors import InputError
from mmoe_ranker.model import Ranker

_KEPT_CHECKPOINTS = 2


class _Records(tf.train.experimental.PythonState):
    """What is known of the training so far, as JSON in the checkpoint."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def serialize(self) -> str:
        return json.dumps(self.value)

    def deserialize(self, string_value: str) -> None:
        self.value = json.loads(string_value)


class Progress:
    """How far a training is, saved with the weights in one checkpoint, so that the two can never disagree.

    Args:
      ranker: compiled; its weights, its metrics and its optimiser's slots are saved.
      folder: where it saves checkpoints.
      steps_per_epoch: how many batches a pass has.
    """

    def __init__(self, ranker: Ranker, folder: Path, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.step = tf.Variable(0, dtype=tf.int64)  # of the epoch
        self._ranker = ranker
        self._records = _Records([])
        self._experts = _Records({})
        self._metrics: list[tf.Tensor] = []
        self._checkpoint = tf.train.Checkpoint(
            ranker=ranker,
            optimizer=ranker.optimizer,
            epoch=self.epoch,
            step=self.step,
            records=self._records,
            experts=self._experts,
        )
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(folder), max_to_keep=_KEPT_CHECKPOINTS)

    @property
    def total_steps(self) -> int:
        """Steps done since the training began."""
        return int(self.epoch) * self.steps_per_epoch + int(self.step)

    @property
    def passes(self) -> list[dict[str, Any]]:
        """A record a pass that is done, with its `metrics`; whoever adds to one saves."""
        return self._records.value

    @property
    def experts(self) -> dict[str, Any]:
        """What `expert_history` has seen so far."""
        return self._experts.value

    def restore(self, folder: Path) -> None:
        """Goes to where the newest checkpoint of a folder is, if one is there."""
        self._checkpoint.restore(tf.train.latest_checkpoint(str(folder)))
        if int(self.step):
            self._metrics = [tf.identity(variable) for variable in self._metric_variables()]

    def resume_metrics(self) -> None:
        """Gives the metrics what they had counted of the pass before the kill; `fit` resets them when it starts."""
        if self._metrics:
            for variable, value in zip(self._metric_variables(), self._metrics, strict=True):
                variable.assign(value)
            self._metrics = []

    def end_pass(self, metrics: dict[str, float]) -> None:
        """Records a pass, and saves its end as the start of the next."""
        self.passes.append({"metrics": metrics})
        self.step.assign(0)
        self.epoch.assign_add(1)
        self.save()

    def save(self) -> None:
        """Writes a checkpoint; the one before stays until it is whole.

        Raises:
          InputError: a weight is not finite.
        """
        for variable in self._ranker.trainable_variables:
            if not bool(tf.reduce_all(tf.math.is_finite(variable))):
                raise InputError(
                    "The weights must stay finite, so no checkpoint of these was saved: lower "
                    "`training.optimizer.learning_rate`, or look for extreme values among numeric features and labels. "
                    f"Received: {variable.name!r} with NaN or infinity at step {self.total_steps}."
                )
        self._manager.save()

    def _metric_variables(self) -> list[tf.Variable]:
        return [variable for metric in self._ranker.metrics for variable in metric.variables]
