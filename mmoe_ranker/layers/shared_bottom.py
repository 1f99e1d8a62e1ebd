"""The shared bottom: one stack of layers under all objectives, the baseline that experts are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mmoe_ranker.layers.dense import dense_stack


class SharedBottom(tf.keras.layers.Layer):
    """One bottom for all objectives (Caruana 1997; Zhao et al. 2019, fig. 2a).

    Example:
      >>> towers, gates = SharedBottom([16])(tf.zeros([3, 8]))
      >>> towers.shape, gates
      (TensorShape([3, 16]), None)

    Args:
      units: widths of the layers.
      dropout: rate after each of them.
      **kwargs: for the base layer.

    Input shape: [B, I].
    Output shape: [B, U], the same for every objective, and None, since there are no gates.
    """

    def __init__(self, units: Sequence[int], dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = tuple(units)
        self.dropout = dropout
        self.bottom = dense_stack(self.units, dropout, name="bottom")

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, None]:
        """Returns what all objectives share, and no gates."""
        return self.bottom(inputs, training=training), None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"units": self.units, "dropout": self.dropout}
