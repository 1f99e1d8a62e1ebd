"""Logistic regressions of a few numbers that follow the batches of a training, without an optimiser.

Shapes: B impressions, K regressions side by side, F features of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

# A long training, or one that goes on every day, follows its model by so many impressions.
_MEMORY = 1_000_000.0


class OnlineLogistic(tf.keras.layers.Layer):
    """Logistic regression by Newton's method, a step a batch, that forgets its data but never its Gaussian prior.

    With p = sigmoid(offset + x theta) at the coefficients before the batch, all sums over its impressions:

      H      = sum w p (1 - p) x x^T
      A     <- keep A + H
      b     <- keep b + H theta + sum w (y - p) x
      theta <- (A + P)^-1 (b + P m)

    where m and P are mean and precision of the prior. keep = 1 - n max(r / N, 1 / 1,000,000) for the n impressions of
    the batch and the N of all so far: what was learned when the model was young counts for little, because impression i
    has about the weight (i / N)^r.

    It is recursive least squares on the working response, as an extended Kalman filter has it (Fahrmeir, "Posterior
    Mode Estimation by Extended Kalman Filtering for Multivariate Dynamic Generalized Linear Models", JASA 1992). The
    coefficients are variables that no optimiser sees and every checkpoint keeps.

    Example:
      >>> OnlineLogistic(num_regressions=1, mean=[0.0], precision=[1.0]).coefficients.shape
      TensorShape([1, 1])

    Args:
      num_regressions: K.
      mean: F numbers, the coefficients before training.
      precision: F numbers, the diagonal of P.
      recency: r; so that 1 / (1 + r) of all impressions count.
      **kwargs: for the base layer.
    """

    def __init__(
        self,
        num_regressions: int,
        mean: Sequence[float],
        precision: Sequence[float],
        recency: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable=False, **kwargs)
        size = len(mean)
        self.recency = recency
        self.mean = tf.constant(mean, tf.float32)
        self.precision = tf.linalg.diag(tf.constant(precision, tf.float32))
        self.coefficients = self.add_weight(
            "coefficients",
            [num_regressions, size],
            initializer=lambda shape, dtype=None, **_: tf.broadcast_to(tf.cast(self.mean, dtype), shape),
            trainable=False,
        )
        self.information = self.add_weight(
            "information", [num_regressions, size, size], initializer="zeros", trainable=False
        )
        self.response = self.add_weight("response", [num_regressions, size], initializer="zeros", trainable=False)
        self.seen = self.add_weight("seen", [num_regressions], initializer="zeros", trainable=False)

    def learn(self, design: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, offset: tf.Tensor | float = 0.0) -> None:
        """One batch; no gradient goes through it.

        Args:
          design: x, [B, K, F].
          label: y, 0 or 1, [B, K].
          weight: w, [B, K]; 0 leaves an impression out.
          offset: of the logit, [B, K].
        """
        theta = self.coefficients.read_value()
        prob = tf.sigmoid(offset + tf.einsum("bkf,kf->bk", design, theta))
        hessian = tf.einsum("bk,bkf,bkg->kfg", weight * prob * (1.0 - prob), design, design)
        gradient = tf.einsum("bk,bkf->kf", weight * (label - prob), design)
        count = tf.reduce_sum(tf.cast(weight > 0.0, tf.float32), axis=0)  # [K]
        seen = self.seen.assign_add(count)
        forgotten = tf.maximum(tf.math.divide_no_nan(self.recency * count, seen), count / _MEMORY)
        keep = tf.maximum(1.0 - forgotten, 0.0)[:, tf.newaxis]
        information = self.information.assign(keep[:, :, tf.newaxis] * self.information + hessian)
        response = self.response.assign(keep * self.response + tf.einsum("kfg,kg->kf", hessian, theta) + gradient)
        posterior = response + tf.linalg.matvec(self.precision, self.mean)
        self.coefficients.assign(tf.linalg.solve(information + self.precision, posterior[:, :, tf.newaxis])[:, :, 0])
