"""What differs between binary and regression objectives: the loss, the prediction from a logit, the metrics.

A missing label (NaN) counts neither in a loss nor in a metric. Shapes: B impressions.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmoe_ranker.config_objectives import BinaryObjective, RegressionObjective
from mmoe_ranker.errors import InputError
from mmoe_ranker.statistics import LabelStatistics, Statistics

# Bound of a regression's transformed prediction: a wild logit gives a large number, never infinity.
_MAX_LOG1P = 20.0


class ObjectiveHead(tf.keras.layers.Layer):
    """Loss, prediction and metrics of one objective, from its logit.

    The loss is the sum over labelled impressions divided by the size of the batch, so that an objective with few
    labels has a small loss rather than a noisy one of full size.

    Args:
      name: of the objective.
      loss_weight: factor of its loss in the sum over objectives.
      initial_logit: the logit whose prediction is the mean label, where training starts.
      loss: summed over impressions, of targets and logits.
      metrics: of targets and logits.
    """

    def __init__(
        self,
        name: str,
        loss_weight: float,
        initial_logit: float,
        loss: tf.keras.losses.Loss,
        metrics: Sequence[tf.keras.metrics.Metric],
    ) -> None:
        super().__init__(name=name)
        self.loss_weight = loss_weight
        self.initial_logit = initial_logit
        self.mean_loss = tf.keras.metrics.Mean(name=f"{name}_loss")
        self.task = tfrs.tasks.Ranking(loss=loss, metrics=list(metrics), name=f"{name}_task")

    def loss(self, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
        """The loss of a batch, a scalar; updates the metrics.

        Args:
          labels: [B], NaN where missing.
          logits: [B].
          weights: [B] of impressions, or None for 1.
        """
        labelled = tf.math.is_finite(labels)
        weight = tf.cast(labelled, logits.dtype)
        if weights is not None:
            weight *= tf.cast(weights, logits.dtype)
        targets = self.target(tf.where(labelled, labels, tf.zeros_like(labels)))
        total = self.task(targets[:, tf.newaxis], logits[:, tf.newaxis], sample_weight=weight[:, tf.newaxis])
        total_weight = tf.reduce_sum(weight)
        self.mean_loss.update_state(tf.math.divide_no_nan(total, total_weight), sample_weight=total_weight)
        return total / tf.cast(tf.shape(labels)[0], logits.dtype)

    @abc.abstractmethod
    def target(self, labels: tf.Tensor) -> tf.Tensor:
        """What the logit is compared with, [B]."""

    @abc.abstractmethod
    def prediction(self, logits: tf.Tensor) -> tf.Tensor:
        """The prediction, [B], in the label's own unit."""


class BinaryHead(ObjectiveHead):
    """Cross entropy on the logit; the prediction is a probability."""

    def __init__(self, objective: BinaryObjective, label: LabelStatistics) -> None:
        # Half a label is added to each side, so that an objective without positives starts low and finite.
        rate = (label.mean * label.count + 0.5) / (label.count + 1.0)
        super().__init__(
            objective.name,
            objective.loss_weight,
            initial_logit=math.log(rate / (1.0 - rate)),
            loss=tf.keras.losses.BinaryCrossentropy(from_logits=True, reduction=tf.keras.losses.Reduction.SUM),
            metrics=[tf.keras.metrics.AUC(from_logits=True, name=f"{objective.name}_auc")],
        )

    def target(self, labels: tf.Tensor) -> tf.Tensor:
        """The label itself."""
        return labels

    def prediction(self, logits: tf.Tensor) -> tf.Tensor:
        """The probability."""
        return tf.sigmoid(logits)


class RegressionHead(ObjectiveHead):
    """Squared error on the label transformed and standardised, so that its loss is of the size of the others'.

    logit ~ (transform(label) - mean) / std. With `log1p` the prediction, expm1 of the mean logarithm, is nearer to the
    median of the label than to its mean.
    """

    def __init__(self, objective: RegressionObjective, label: LabelStatistics) -> None:
        self.transform = objective.transform
        self.mean = label.mean
        self.std = label.std or 1.0
        super().__init__(
            objective.name,
            objective.loss_weight,
            initial_logit=0.0,
            loss=tf.keras.losses.MeanSquaredError(reduction=tf.keras.losses.Reduction.SUM),
            metrics=[tf.keras.metrics.RootMeanSquaredError(name=f"{objective.name}_standardised_rmse")],
        )

    def target(self, labels: tf.Tensor) -> tf.Tensor:
        """The label transformed and standardised."""
        values = tf.math.log1p(labels) if self.transform == "log1p" else labels
        return (values - self.mean) / self.std

    def prediction(self, logits: tf.Tensor) -> tf.Tensor:
        """The value; at least 0 under `log1p`."""
        values = logits * self.std + self.mean
        return tf.math.expm1(tf.clip_by_value(values, 0.0, _MAX_LOG1P)) if self.transform == "log1p" else values


def objective_heads(
    objectives: Sequence[BinaryObjective | RegressionObjective], statistics: Statistics
) -> dict[str, ObjectiveHead]:
    """A head an objective, by name, in config order.

    Raises:
      InputError: the statistics know nothing of an objective.
    """
    built: dict[str, ObjectiveHead] = {}
    for objective in objectives:
        label = statistics.labels.get(objective.name)
        if label is None:
            raise InputError(
                f"The statistics of the examples must hold the objective `{objective.name}`: build the examples with "
                f"the config that trains. Received: objectives {sorted(statistics.labels)}."
            )
        if isinstance(objective, RegressionObjective):
            built[objective.name] = RegressionHead(objective, label)
        else:
            built[objective.name] = BinaryHead(objective, label)
    return built
