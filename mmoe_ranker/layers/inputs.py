"""Inputs of the main tower that are not plain embeddings: numbers, their buckets, and pooled sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class NumericInput(tf.keras.layers.Layer):
    """Numbers, each transformed and normalised: (transform(x) - mean) / std, and 0 where it is missing.

    All of them at once: at serving, each op has a price of its own, whatever it computes.

    Args:
      transforms: of each number, `none` or `log1p`.
      means: mean of each transformed value over the training split; 0 to leave it as it is.
      stds: its standard deviation; 1 to leave it as it is.
      missing_indicators: which numbers get a column behind their own that is 1 where the number is missing.
      **kwargs: for the base layer.

    Input shape: [B, F], F numbers, NaN where missing.
    Output shape: [B, F] and a column more for each indicator.
    """

    def __init__(
        self,
        transforms: Sequence[str] = ("none",),
        means: Sequence[float] = (0.0,),
        stds: Sequence[float] = (1.0,),
        missing_indicators: Sequence[bool] = (False,),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.transforms = tuple(transforms)
        self.means = tuple(means)
        self.stds = tuple(stds)
        self.missing_indicators = tuple(missing_indicators)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the input's columns."""
        missing = tf.math.is_nan(inputs)
        values = tf.where(missing, 0.0, inputs)
        logarithmic = [transform == "log1p" for transform in self.transforms]
        if any(logarithmic):
            values = tf.where(logarithmic, tf.math.log1p(values), values)
        if any(self.means) or set(self.stds) != {1.0}:
            values = tf.where(missing, 0.0, (values - self.means) / self.stds)
        if not any(self.missing_indicators):
            return values
        columns = []
        for place, indicator in enumerate(self.missing_indicators):
            columns += [place, len(self.means) + place] if indicator else [place]
        return tf.gather(tf.concat([values, tf.cast(missing, values.dtype)], axis=-1), columns, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "transforms": self.transforms,
            "means": self.means,
            "stds": self.stds,
            "missing_indicators": self.missing_indicators,
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
