"""Gradient reversal: the identity forward, and a gradient that makes what lies below worse at what lies above."""

from __future__ import annotations

import tensorflow as tf


def reverse_gradient(inputs: tf.Tensor, weight: float) -> tf.Tensor:
    """Returns its input; the gradient that flows back is multiplied by -`weight`.

    Reference: Ganin and Lempitsky 2015, https://arxiv.org/abs/1409.7495, eq. 7 and 8.

    Args:
      inputs: of any shape, such as [B, D].
      weight: strength of the adversary against the objectives.
    """

    @tf.custom_gradient
    def reversed_identity(values: tf.Tensor) -> tuple[tf.Tensor, object]:
        return tf.identity(values), lambda upstream: -weight * upstream

    return reversed_identity(inputs)
