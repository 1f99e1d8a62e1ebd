"""Inputs of the main tower that are not plain embeddings: numbers, their buckets, and pooled sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class NumericInput(tf.keras.layers.Layer):
    """One number, transformed and normalised: (transform(x) - mean) / std, and 0 where it is missing.

    Args:
      transform: `none` or `log1p`.
      mean: mean of the transformed value over the training split; 0 to leave it as it is.
      std: its standard deviation; 1 to leave it as it is.
      missing_indicator: adds a column that is 1 where the number is missing.
      **kwargs: for the base layer.

    Input shape: [B], NaN where missing.
    Output shape: [B, 1], or [B, 2] with the indicator.
    """

    def __init__(
        self,
        transform: str = "none",
        mean: float = 0.0,
        std: float = 1.0,
        missing_indicator: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.transform = transform
        self.mean = mean
        self.std = std
        self.missing_indicator = missing_indicator

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the input's columns."""
        missing = tf.math.is_nan(inputs)
        values = tf.where(missing, tf.zeros_like(inputs), inputs)
        if self.transform == "log1p":
            values = tf.math.log1p(values)
        values = tf.where(missing, tf.zeros_like(values), (values - self.mean) / self.std)
        columns = [values, tf.cast(missing, values.dtype)] if self.missing_indicator else [values]
        return tf.stack(columns, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "transform": self.transform,
            "mean": self.mean,
            "std": self.std,
            "missing_indicator": self.missing_indicator,
        }


class QuantileEmbedding(tf.keras.layers.Layer):
    """Embedding of the bucket that a number falls into.

    Bucket i holds edges[i - 1] <= x < edges[i]; a missing number has a bucket of its own.

    Args:
      edges: rising inner edges of the buckets.
      dim: D, width of the embedding.
      **kwargs: for the base layer.

    Input shape: [B], NaN where missing.
    Output shape: [B, D].
    """

    def __init__(self, edges: Sequence[float], dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.edges = [float(edge) for edge in edges]
        self.dim = dim
        self.table = tf.keras.layers.Embedding(len(self.edges) + 2, dim, name="table")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the embeddings."""
        buckets = tf.searchsorted(tf.constant(self.edges, inputs.dtype), inputs, side="right")
        return self.table(tf.where(tf.math.is_nan(inputs), 0, 1 + buckets))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"edges": self.edges, "dim": self.dim}


def masked_mean(embeddings: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean of the embeddings of a sequence over the places where the mask is true, 0 where there is none.

    Args:
      embeddings: [B, L, D].
      mask: [B, L] of booleans.

    Returns:
      [B, D].
    """
    weights = tf.cast(mask, embeddings.dtype)
    total = tf.einsum("bl,bld->bd", weights, embeddings)
    return tf.math.divide_no_nan(total, tf.reduce_sum(weights, axis=1, keepdims=True))
