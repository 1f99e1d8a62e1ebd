"""What differs between objectives: the loss, the prediction from a logit, the metrics.

A missing label (NaN) counts neither in a loss nor in a metric. Shapes: B impressions.

  BinaryHead            cross entropy where the label exists
  EntireSpaceHead       cross entropy of a chain's product, over all impressions
  RegressionHead        squared error or huber on the standardised label
  WeightedLogisticHead  weighted logistic regression: odds are mean labels
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmoe_ranker.config_objectives import BinaryObjective, RegressionObjective
from mmoe_ranker.errors import InputError
from mmoe_ranker.losses import OddsError, WeightedLogistic, joint_label, joint_logit, odds
from mmoe_ranker.statistics import LabelStatistics

# Bound of a regression's transformed prediction: a wild logit gives a large number, never infinity.
_MAX_LOG1P = 20.0
_SUM = tf.keras.losses.Reduction.SUM


class ObjectiveLoss(NamedTuple):
    """The loss of one objective on a batch, scalars.

    Attributes:
      loss: the sum over labelled impressions over the size of the batch.
      labelled: the share of the batch, by weight, that is labelled.
    """

    loss: tf.Tensor
    labelled: tf.Tensor


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
      scale: factor that makes a likelihood of the loss: 1/2 for a squared error.
    """

    def __init__(
        self,
        name: str,
        loss_weight: float,
        initial_logit: float,
        loss: tf.keras.losses.Loss,
        metrics: Sequence[tf.keras.metrics.Metric],
        scale: float = 1.0,
    ) -> None:
        super().__init__(name=name)
        self.loss_weight = loss_weight
        self.initial_logit = initial_logit
        self.scale = scale
        self.mean_loss = tf.keras.metrics.Mean(name=f"{name}_loss")
        self.task = tfrs.tasks.Ranking(loss=loss, metrics=list(metrics), name=f"{name}_task")

    def loss(
        self,
        labels: Mapping[str, tf.Tensor],
        outputs: Mapping[str, tf.Tensor],
        weights: tf.Tensor | None = None,
        training: bool = True,
    ) -> ObjectiveLoss:
        """The loss of a batch; updates the metrics.

        Args:
          labels: by objective, [B], NaN where missing.
          outputs: of the ranker; `<objective>_logit` is [B].
          weights: [B] of impressions, or None for 1.
          training: whether the impressions are sampled as in training; if not, logits are corrected as in serving.
        """
        label, logit = self.compared(labels, outputs, training)
        labelled = tf.math.is_finite(label)
        weight = tf.cast(labelled, logit.dtype)
        if weights is not None:
            weight *= tf.cast(weights, logit.dtype)
        target = self.target(tf.where(labelled, label, tf.zeros_like(label)))
        total = self.task(target[:, tf.newaxis], logit[:, tf.newaxis], sample_weight=weight[:, tf.newaxis])
        total_weight = tf.reduce_sum(weight)
        self.mean_loss.update_state(tf.math.divide_no_nan(total, total_weight), sample_weight=total_weight)
        size = tf.cast(tf.shape(label)[0], logit.dtype)
        return ObjectiveLoss(total / size, total_weight / size)

    def compared(
        self, labels: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor], training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The label [B] and the logit [B] that the loss compares: the objective's own."""
        return labels[self.name], outputs[f"{self.name}_logit"]

    @abc.abstractmethod
    def target(self, labels: tf.Tensor) -> tf.Tensor:
        """What the logit is compared with, [B]."""

    @abc.abstractmethod
    def prediction(self, logits: tf.Tensor) -> tf.Tensor:
        """The prediction, [B], in the label's own unit."""


class BinaryHead(ObjectiveHead):
    """Cross entropy on the logit; the prediction is a probability.

    Where the pipeline kept the share r of the objective's negatives, and the config corrects that in the export, the
    model learns the odds p / (1 - p) / r of the sample. The prediction is sigmoid(logit + log r), in evaluation and
    serving alike, while the training loss sees the logit itself. Exact where negatives stay independently of the
    features, as those of a single objective do; an objective whose negatives stay when another's event happens is
    right on average only.

    Reference: King and Zeng, "Logistic Regression in Rare Events Data", 2001, eq. 7; He et al., "Practical Lessons from
    Predicting Clicks on Ads at Facebook", ADKDD 2014, sec. 6.3, https://doi.org/10.1145/2648584.2648589.

    Args:
      objective: of the config.
      label: its statistics on the training split, as sampled.
      correction: how sampling is corrected: `export`, `weights`, or None without sampling.
      metric: name of the AUC.
    """

    def __init__(
        self, objective: BinaryObjective, label: LabelStatistics, correction: str | None, metric: str = "auc"
    ) -> None:
        if not label.negatives_kept > 0.0:
            raise InputError(
                f"The examples must hold a negative of `{objective.name}`: raise `sampling.negatives`, or build "
                f"examples of more logs. Received: a share of {label.negatives_kept} of its negatives."
            )
        # Half a label is added to each side, so that an objective without positives starts low and finite.
        rate = (label.mean * label.count + 0.5) / (label.count + 1.0)
        shift = math.log(label.negatives_kept)
        self.shift = shift if correction == "export" else 0.0
        super().__init__(
            objective.name,
            objective.loss_weight,
            initial_logit=math.log(rate / (1.0 - rate)) + (shift if correction == "weights" else 0.0),
            loss=tf.keras.losses.BinaryCrossentropy(from_logits=True, reduction=_SUM),
            metrics=[tf.keras.metrics.AUC(from_logits=True, name=f"{objective.name}_{metric}")],
        )

    def compared(
        self, labels: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor], training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The label, and the logit of impressions as they come, [B]: sampled in training, whole otherwise."""
        logit = outputs[f"{self.name}_logit"]
        return labels[self.name], logit if training else logit + self.shift

    def target(self, labels: tf.Tensor) -> tf.Tensor:
        """The label itself, [B]."""
        return labels

    def prediction(self, logits: tf.Tensor) -> tf.Tensor:
        """The probability [B] among impressions that are not sampled."""
        return tf.sigmoid(logits + self.shift)


class EntireSpaceHead(BinaryHead):
    """A conditional probability that is trained over all impressions, not only where its condition holds.

    The loss is the cross entropy of p_1 ... p_n, the product of the objective's own probability with those of all it is
    given, on the label "all of them happened", which is 0 wherever one before did not. What is served is the own
    probability p_n, conditional as everywhere; the combined score may multiply it with the others.

    Each logit is the one that its own loss sees, relevance and bias. Gradients flow into all of them, as in the paper,
    so that the parents learn from this loss too. Its AUC in training, `<objective>_entire_space_auc`, is the product's.

    Reference: Ma et al., "Entire Space Multi-Task Model", SIGIR 2018, eq. 3 and 4,
    https://doi.org/10.1145/3209978.3210104.

    Args:
      objective: of the config.
      label: its statistics, where its condition holds.
      correction: as of `BinaryHead`.
      parents: heads of all it is given, the first condition first.
    """

    def __init__(
        self,
        objective: BinaryObjective,
        label: LabelStatistics,
        correction: str | None,
        parents: Sequence[BinaryHead],
    ) -> None:
        super().__init__(objective, label, correction, metric="entire_space_auc")
        # Not the heads themselves, which Keras would take for layers of this one.
        self.shifts = {head.name: head.shift for head in (*parents, self)}

    def compared(
        self, labels: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor], training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether the whole chain happened, and the logit of its product, [B]."""
        logits = [outputs[f"{name}_logit"] + (0.0 if training else shift) for name, shift in self.shifts.items()]
        return joint_label([labels[name] for name in self.shifts]), joint_logit(logits)


class RegressionHead(ObjectiveHead):
    """Squared error or huber on the label transformed and standardised, so that its loss is of the size of the others'.

    logit ~ (transform(label) - mean) / std. With d the difference, squared error is d^2; huber is d^2 / 2 up to
    |d| = 1, a standard deviation, and |d| - 1/2 beyond, so that a few huge labels do not rule. With `log1p` the
    prediction, expm1 of the mean logarithm, is nearer to the median of the label than to its mean.
    """

    def __init__(self, objective: RegressionObjective, label: LabelStatistics) -> None:
        self.transform = objective.transform
        self.mean = label.mean
        self.std = label.std or 1.0
        huber = objective.loss == "huber"
        super().__init__(
            objective.name,
            objective.loss_weight,
            initial_logit=0.0,
            loss=tf.keras.losses.Huber(1.0, _SUM) if huber else tf.keras.losses.MeanSquaredError(_SUM),
            metrics=[tf.keras.metrics.RootMeanSquaredError(name=f"{objective.name}_standardised_rmse")],
            scale=1.0 if huber else 0.5,
        )

    def target(self, labels: tf.Tensor) -> tf.Tensor:
        """The label [B] transformed and standardised."""
        values = tf.math.log1p(labels) if self.transform == "log1p" else labels
        return (values - self.mean) / self.std

    def prediction(self, logits: tf.Tensor) -> tf.Tensor:
        """The value [B]; at least 0 under `log1p`."""
        values = logits * self.std + self.mean
        return tf.math.expm1(tf.clip_by_value(values, 0.0, _MAX_LOG1P)) if self.transform == "log1p" else values


class WeightedLogisticHead(ObjectiveHead):
    """Weighted logistic regression of the label over its mean; the prediction is mean * exp(logit), a mean label.

    See `losses.WeightedLogistic`. The RMSE in training, `<objective>_relative_rmse`, is in mean labels.

    Raises:
      InputError: labels are negative, or the statistics do not say whether they are.
    """

    def __init__(self, objective: RegressionObjective, label: LabelStatistics) -> None:
        if label.least is None or label.least < 0.0:
            raise InputError(
                f"The labels of `{objective.name}` must be at least 0, because of its loss weighted_logistic; examples "
                f"of an older version, which do not say, must be built again. Received: a least label of {label.least}."
            )
        self.mean = label.mean or 1.0
        super().__init__(
            objective.name,
            objective.loss_weight,
            initial_logit=0.0,
            loss=WeightedLogistic(_SUM),
            metrics=[OddsError(name=f"{objective.name}_relative_rmse")],
        )

    def target(self, labels: tf.Tensor) -> tf.Tensor:
        """The label [B] in mean labels."""
        return labels / self.mean

    def prediction(self, logits: tf.Tensor) -> tf.Tensor:
        """The value [B], above 0 and at most 5e8 mean labels."""
        return self.mean * odds(logits)
