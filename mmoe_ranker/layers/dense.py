"""Dense blocks: a plain stack, and many small dense layers of one shape computed as one.

Shapes: B impressions, S layers side by side (experts, or one tower an objective), I inputs, U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def dense_stack(units: Sequence[int], dropout: float = 0.0, name: str | None = None) -> tf.keras.Sequential:
    """ReLU layers of these widths, each followed by dropout where its rate is above 0; no layer gives the identity."""
    layers: list[tf.keras.layers.Layer] = []
    for depth, width in enumerate(units):
        layers.append(tf.keras.layers.Dense(width, activation="relu", name=f"{name or 'dense'}_{depth}"))
        if dropout:
            layers.append(tf.keras.layers.Dropout(dropout))
    return tf.keras.Sequential(layers or [tf.keras.layers.Activation("linear")], name=name)


class ParallelDense(tf.keras.layers.Layer):
    """`num_layers` dense layers of one shape, each with weights of its own, as one matrix product.

    y[:, s] = activation(x[:, s] W_s + b_s), or with one input for all, y[:, s] = activation(x W_s + b_s). Experts and
    objective towers are narrow; side by side they fill the processor as separate `Dense` layers do not.

    Example:
      >>> ParallelDense(num_layers=4, units=8)(tf.zeros([2, 16])).shape
      TensorShape([2, 4, 8])

    Args:
      num_layers: S, how many layers stand side by side.
      units: U, the width of each.
      activation: name of a Keras activation, or None.
      bias_initial: S initial values of the biases, for U = 1; zeros if None.
      **kwargs: for the base layer.

    Input shape: [B, I] shared by all layers, or [B, S, I].
    Output shape: [B, S, U].
    """

    def __init__(
        self,
        num_layers: int,
        units: int,
        activation: str | None = None,
        bias_initial: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.units = units
        self.activation = activation
        self.bias_initial = None if bias_initial is None else [float(value) for value in bias_initial]
        self._activate = tf.keras.activations.get(activation)

    def build(self, input_shape: tf.TensorShape) -> None:
        """Draws each layer's kernel by itself: one draw of [S, I, U] would take S for a filter width."""
        inputs = int(input_shape[-1])

        def kernels(shape: Sequence[int], dtype: tf.DType | None = None, **_: Any) -> tf.Tensor:
            # A new initialiser each time: one instance returns the same values whenever it is called.
            return tf.stack([tf.keras.initializers.GlorotUniform()(shape[1:], dtype=dtype) for _ in range(shape[0])])

        def biases(shape: Sequence[int], dtype: tf.DType | None = None, **_: Any) -> tf.Tensor:
            values = self.bias_initial or [0.0] * self.num_layers
            return tf.broadcast_to(tf.constant(values, dtype=dtype)[:, tf.newaxis], shape)

        self.kernel = self.add_weight("kernel", [self.num_layers, inputs, self.units], initializer=kernels)
        self.bias = self.add_weight("bias", [self.num_layers, self.units], initializer=biases)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Applies every layer to its slice, or all of them to the one input."""
        if inputs.shape.rank == 2:
            # One wide product instead of S narrow ones.
            wide = tf.reshape(tf.transpose(self.kernel, [1, 0, 2]), [-1, self.num_layers * self.units])
            outputs = tf.reshape(tf.matmul(inputs, wide), [-1, self.num_layers, self.units])
        else:
            outputs = tf.einsum("bsi,siu->bsu", inputs, self.kernel)
        return self._activate(outputs + self.bias)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "num_layers": self.num_layers,
            "units": self.units,
            "activation": self.activation,
            "bias_initial": self.bias_initial,
        }
