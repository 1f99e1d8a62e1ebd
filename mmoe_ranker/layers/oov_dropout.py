"""Training of the rows that new values will have."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class OovDropout(tf.keras.layers.Layer):
    """In training, turns a share of the known rows into an out-of-vocabulary row, each place by itself.

    The vocabulary is counted on the split that trains, so that hardly a value there is out of it; without this the row
    that a new value gets at serving would stay where it was drawn. Known row r becomes 1 + (r mod oov_buckets): always
    the same bucket for a value, and all buckets are used alike. Row 0, "missing", and rows that are out of vocabulary
    already stay.

    Example:
      >>> layer = OovDropout(rate=1.0, oov_buckets=2)
      >>> layer(tf.constant([0, 1, 2, 3, 4])).numpy()
      array([0, 1, 2, 3, 4], dtype=int32)
      >>> layer(tf.constant([0, 1, 2, 3, 4]), training=True).numpy()
      array([0, 1, 2, 2, 1], dtype=int32)

    Args:
      rate: share of the known rows that is turned.
      oov_buckets: how many out-of-vocabulary rows there are, from row 1; the known ones follow.
      seed: seed of the draws, whose state is saved in checkpoints.
      **kwargs: for the base layer.

    Input shape: rows of any shape.
    Output shape: the same.
    """

    def __init__(self, rate: float, oov_buckets: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.oov_buckets = oov_buckets
        self.seed = seed
        self.generator = tf.random.Generator.from_seed(seed)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the rows that the table is asked for, in the shape of the inputs, [B] or [B, L]."""
        if not training:
            return inputs
        dropped = (inputs > self.oov_buckets) & (self.generator.uniform(tf.shape(inputs)) < self.rate)
        return tf.where(dropped, 1 + inputs % self.oov_buckets, inputs)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"rate": self.rate, "oov_buckets": self.oov_buckets, "seed": self.seed}
