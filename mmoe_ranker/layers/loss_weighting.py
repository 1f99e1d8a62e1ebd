"""How the losses of the objectives become one: by weights set by hand, or by weights that are trained.

Shapes: T objectives in config order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

# Bounds of a log variance: an objective that is fitted exactly, or has no labels, would drive it off for ever.
_MAX_LOG_VARIANCE = 10.0


class StaticWeights(tf.keras.layers.Layer):
    """The weighted sum of the losses: sum_k w_k L_k (Zhao et al. 2019, sec. 4.2).

    Args:
      loss_weights: T floats w_k.
      **kwargs: for the base layer.

    Input shape: losses [T] and labelled [T], which the sum does not look at.
    Output shape: a scalar.
    """

    def __init__(self, loss_weights: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss_weights = list(loss_weights)

    def call(self, losses: tf.Tensor, labelled: tf.Tensor) -> tf.Tensor:
        """The training loss."""
        return tf.reduce_sum(losses * tf.constant(self.loss_weights, losses.dtype))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return super().get_config() | {"loss_weights": self.loss_weights}


class UncertaintyWeights(tf.keras.layers.Layer):
    """Weights the losses by a trained variance an objective: the noisier an objective, the less it counts.

    loss = sum_k exp(-s_k) c_k w_k L_k + n_k s_k / 2, with s_k the log variance, c_k 1/2 for a squared error (Gaussian)
    and 1 for others, L_k the sum of the losses of impressions over the size of the batch, and n_k the share of the
    batch that has the label. At the optimum exp(s_k) = 2 c_k w_k L_k / n_k: twice c_k w_k times the mean loss of a
    labelled impression. n_k is 1 in the paper, which knows no missing labels; without it a rare objective would be
    weighed by its rarity, and one without a label in the batch would move.

    Each s_k starts at 0 and stays within +-10. Its value is reported as the metric `<objective>_log_variance`.

    Reference: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, eq. 7 and 10,
    https://arxiv.org/abs/1705.07115.

    Args:
      objectives: T names.
      loss_weights: T floats w_k; one of weight 0 has no part.
      scales: T floats c_k.
      **kwargs: for the base layer.

    Input shape: losses [T] and labelled [T].
    Output shape: a scalar.
    """

    def __init__(
        self, objectives: Sequence[str], loss_weights: Sequence[float], scales: Sequence[float], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.objectives = list(objectives)
        self.loss_weights = list(loss_weights)
        self.scales = list(scales)
        self.reported = [tf.keras.metrics.Mean(name=f"{name}_log_variance") for name in objectives]
        self.log_variance = self.add_weight(
            "log_variance",
            [len(self.objectives)],
            tf.float32,
            "zeros",
            constraint=lambda values: tf.clip_by_value(values, -_MAX_LOG_VARIANCE, _MAX_LOG_VARIANCE),
        )

    def call(self, losses: tf.Tensor, labelled: tf.Tensor) -> tf.Tensor:
        """The training loss."""
        for index, metric in enumerate(self.reported):
            metric.update_state(self.log_variance[index])
        factors = [scale * weight for scale, weight in zip(self.scales, self.loss_weights, strict=True)]
        counted = tf.constant([0.5 if weight > 0.0 else 0.0 for weight in self.loss_weights], losses.dtype)
        weighted = tf.exp(-self.log_variance) * tf.constant(factors, losses.dtype) * losses
        return tf.reduce_sum(weighted + counted * labelled * self.log_variance)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        own = {"objectives": self.objectives, "loss_weights": self.loss_weights, "scales": self.scales}
        return super().get_config() | own
