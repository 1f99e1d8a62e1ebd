"""Mixed precision: the matrix products of the dense part in 16 bits, on devices that do them faster.

Weights, embeddings, numeric inputs, logits and losses stay float32. bfloat16 has float32's range; float16 has not, so
that its small gradients would vanish: the loss is scaled up before its gradients are taken, and they are scaled down
after (Micikevicius et al. 2018, https://doi.org/10.48550/arXiv.1710.03740).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf
import tensorflow_recommenders as tfrs


@contextlib.contextmanager
def computed_in(precision: str) -> Iterator[None]:
    """Layers that are made in this context compute in this precision: `float32`, `mixed_bfloat16`, `mixed_float16`."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


class ScaledLossModel(tfrs.Model):
    """A tfrs model whose optimiser may be a `LossScaleOptimizer`, which skips a step whose gradients are not finite."""

    def train_step(self, inputs: tuple) -> dict[str, tf.Tensor]:
        """One step of training; returns the metrics by name, scalars, the loss as it is without scale."""
        if not isinstance(self.optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
            return super().train_step(inputs)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, training=True)
            scaled_loss = self.optimizer.get_scaled_loss(loss)
        scaled_gradients = tape.gradient(scaled_loss, self.trainable_variables)
        gradients = self.optimizer.get_unscaled_gradients(scaled_gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {metric.name: metric.result() for metric in self.metrics} | {"loss": loss}
