"""Dense blocks: a plain stack, and many small dense layers of one shape computed as one.

Shapes: B impressions, S layers side by side (experts, or one tower an objective), I inputs, U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def dense_stack(units: Sequence[int], dropout: float = 0.0, name: str | None = None) -> tf.keras.Sequential:
    """ReLU layers of these widths, each followed by dropout where its rate is above 0; no layer gives the identity.

    Args:
      units: the widths, first to last.
      dropout: its rate.
      name: of the stack, which its layers' names begin with.
    """
    layers: list[tf.keras.layers.Layer] = []
    for depth, width in enumerate(units):
        layers.append(tf.keras.layers.Dense(width, activation="relu", name=f"{name or 'dense'}_{depth}"))
        if dropout:
            layers.append(tf.keras.layers.Dropout(dropout))
    return tf.keras.Sequential(layers or [tf.keras.layers.Activation("linear")], name=name)


class ParallelDense(tf.keras.layers.Layer):
    """`num_layers` dense layers of one shape, each with weights of its own.

    y[:, s] = activation(x[:, s] W_s + b_s), or with one input for all, y[:, s] = activation(x W_s + b_s). Each slice is
    a product of its own: TensorFlow fuses it with its bias and ReLU, and runs several at a time. A batched product of
    [B, S, I] and [S, I, U] would transpose what it reads and writes, forward and backward.

    Example:
      >>> ParallelDense(num_layers=4, units=8)(tf.zeros([2, 16])).shape
      TensorShape([2, 4, 8])

    Args:
      num_layers: S, how many layers stand side by side.
      units: U, the width of each.
      activation: name of a Keras activation, or None.
      bias_initial: S initial values of the biases, for U = 1; zeros if None.
      stacked: whether the output is one tensor; apart, the next layer need not copy what it takes.
      **kwargs: for the base layer.

    Input shape: [B, I] shared by all layers, or [B, S, I], or a list of S of [B, I].
    Output shape: [B, S, U], or not stacked, a list of S of [B, U].
    """

    def __init__(
        self,
        num_layers: int,
        units: int,
        activation: str | None = None,
        bias_initial: Sequence[float] | None = None,
        stacked: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.units = units
        self.activation = activation
        self.bias_initial = None if bias_initial is None else [float(value) for value in bias_initial]
        self.stacked = stacked
        self._activate = tf.keras.activations.get(activation)

    def build(self, input_shape: tf.TensorShape | list[tf.TensorShape]) -> None:
        """Draws each layer's kernel by itself: one draw of [S, I, U] would take S for a filter width."""
        inputs = int((input_shape[0] if isinstance(input_shape, list) else input_shape)[-1])

        def kernels(shape: Sequence[int], dtype: tf.DType | None = None, **_: Any) -> tf.Tensor:
            # A new initialiser each time: one instance returns the same values whenever it is called.
            return tf.stack([tf.keras.initializers.GlorotUniform()(shape[1:], dtype=dtype) for _ in range(shape[0])])

        def biases(shape: Sequence[int], dtype: tf.DType | None = None, **_: Any) -> tf.Tensor:
            values = self.bias_initial or [0.0] * self.num_layers
            return tf.broadcast_to(tf.constant(values, dtype=dtype)[:, tf.newaxis], shape)

        self.kernel = self.add_weight("kernel", [self.num_layers, inputs, self.units], initializer=kernels)
        self.bias = self.add_weight("bias", [self.num_layers, self.units], initializer=biases)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor | list[tf.Tensor]) -> tf.Tensor | list[tf.Tensor]:
        """Applies every layer to its slice, or all of them to the one input."""
        if isinstance(inputs, list):
            slices = inputs
        else:
            slices = [inputs] * self.num_layers if inputs.shape.rank == 2 else tf.unstack(inputs, self.num_layers, 1)
        outputs = [
            self._activate(tf.nn.bias_add(tf.matmul(one, kernel), bias))
            for one, kernel, bias in zip(slices, tf.unstack(self.kernel), tf.unstack(self.bias), strict=True)
        ]
        return tf.stack(outputs, axis=1) if self.stacked else outputs

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "num_layers": self.num_layers,
            "units": self.units,
            "activation": self.activation,
            "bias_initial": self.bias_initial,
            "stacked": self.stacked,
        }
