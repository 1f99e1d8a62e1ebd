"""Losses of objectives that Keras has not, and what entire-space objectives compare, as functions of logits.

Shapes: B impressions.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from mmoe_ranker.replicas import total_over_replicas

# A logit beyond this, either way, predicts as this one does: exp of it is large, never infinite.
MAX_LOG_ODDS = 20.0


class WeightedLogistic(tf.keras.losses.Loss):
    """Weighted logistic regression, whose odds are the mean of the target: for watch time.

    loss = (1 + y) softplus(z) - y z = softplus(z) + y softplus(-z), with y >= 0 the target and z the logit.

    Every impression is a negative of weight 1 and, besides, a positive of weight y. The loss is least at
    sigmoid(z) = E[y] / (1 + E[y]), that is exp(z) = E[y], exactly. In the paper a watched impression is a positive
    only, so that its odds are E[y] / (1 - P(watched)): the mean only where few impressions are watched.

    Reference: Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016, sec. 4.2,
    https://doi.org/10.1145/2959100.2959190.

    Input shape: targets and logits [B, 1].
    Output shape: [B], before the reduction.
    """

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """The loss of each impression; both summands are at least 0 and finite for any finite logit."""
        loss = tf.math.softplus(y_pred) + tf.cast(y_true, y_pred.dtype) * tf.math.softplus(-y_pred)
        return tf.reduce_mean(loss, axis=-1)


class OddsError(tf.keras.metrics.RootMeanSquaredError):
    """Root mean squared error of exp(logit) against the target: `WeightedLogistic`'s prediction, in mean labels."""

    def update_state(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Operation:
        """Adds impressions: targets and logits [B, 1], weights [B, 1]."""
        return super().update_state(y_true, odds(y_pred), sample_weight)


def odds(logits: tf.Tensor) -> tf.Tensor:
    """exp(logit) of logits [B], finite: they are clipped to +-`MAX_LOG_ODDS`."""
    return tf.math.exp(tf.clip_by_value(logits, -MAX_LOG_ODDS, MAX_LOG_ODDS))


def joint_logit(logits: Sequence[tf.Tensor]) -> tf.Tensor:
    """The logit of the product of the probabilities of these logits: that all of a chain happen.

    log p = sum_i log sigmoid(z_i);  log(1 - p) = log sum_i sigmoid(-z_i) prod_{j<i} sigmoid(z_j), the chain's first
    failure being at i;  logit = log p - log(1 - p). No summand is a difference of near numbers, so that the logit is
    finite and right for any finite logits.

    Args:
      logits: n tensors [B], each conditional on those before it.

    Returns:
      [B].
    """
    log_all = tf.zeros_like(logits[0])  # that all so far happened
    first_failures = []
    for logit in logits:
        first_failures.append(log_all - tf.math.softplus(logit))
        log_all -= tf.math.softplus(-logit)
    return log_all - tf.reduce_logsumexp(tf.stack(first_failures), axis=0)


def joint_label(labels: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether all of a chain happened: the first label that is not 1, which may be missing.

    Args:
      labels: n tensors [B] of 0, 1 or NaN for missing, each existing only where those before it are 1.

    Returns:
      [B] of 0, 1 or NaN.
    """
    joint = labels[0]
    for label in labels[1:]:
        joint = tf.where(joint == 1.0, label, joint)
    return joint


def normalised_weights(weights: tf.Tensor) -> tf.Tensor:
    """Sample weights over their mean in the batch, so that their unit does not act as a learning rate.

    Args:
      weights: [B], at least 0; all 0 stays 0.
    """
    count = tf.cast(tf.size(weights), weights.dtype)
    mean = total_over_replicas(tf.reduce_sum(weights)) / total_over_replicas(count)
    return tf.math.divide_no_nan(weights, mean)
