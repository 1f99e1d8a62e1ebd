"""Experts shared by all objectives, and the gates that mix them (eq. 1 and 2).

Shapes: B impressions, I inputs, E experts, U units of an expert's last layer, T objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mmoe_ranker.layers.dense import ParallelDense
from mmoe_ranker.layers.expert_health import SilentExperts


def drop_experts(gates: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
    """Sets the utilisation of dropped experts to 0 and renormalises each gate to sum 1 (sec. 5.2.4).

    Args:
      gates: [B, T, E], each summing to 1 over E.
      keep: [B, T, E] of booleans.

    Returns:
      [B, T, E]; a gate of which no expert is kept stays as it was, since it has nothing to renormalise.
    """
    kept = gates * tf.cast(keep, gates.dtype)
    total = tf.reduce_sum(kept, axis=-1, keepdims=True)
    return tf.where(total > 0.0, tf.math.divide_no_nan(kept, total), gates)


class MixtureOfExperts(tf.keras.layers.Layer):
    """Multi-gate mixture of experts: one softmax gate an objective over experts that all objectives share.

    mixture_k = sum_i g^k_i(x) f_i(x), with g^k(x) = softmax(W_gk x) and every f_i a stack of ReLU layers.

    Reference: Zhao et al. 2019, eq. 1 and 2, gate dropout in sec. 5.2.4; Ma et al. 2018,
    https://doi.org/10.1145/3219819.3220007.

    Example:
      >>> mixture, gates = MixtureOfExperts(num_experts=4, units=[16], num_objectives=2)(tf.zeros([3, 8]))
      >>> mixture.shape, gates.shape
      (TensorShape([3, 2, 16]), TensorShape([3, 2, 4]))

    Args:
      num_experts: E.
      units: widths of each expert's layers.
      num_objectives: T.
      gate_dropout: probability, in training, that an expert's utilisation in a gate is set to 0.
      seed: seed of the gate dropout, whose state is saved in checkpoints.
      **kwargs: for the base layer.

    Input shape: [B, I].
    Output shape: mixture [B, T, U], and the gates before gate dropout [B, T, E]: what the gate wants, not the draw.
    """

    def __init__(
        self,
        num_experts: int,
        units: Sequence[int],
        num_objectives: int,
        gate_dropout: float = 0.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_experts = num_experts
        self.units = tuple(units)
        self.num_objectives = num_objectives
        self.gate_dropout = gate_dropout
        self.seed = seed
        last = len(self.units) - 1
        self.experts = [
            ParallelDense(num_experts, width, "relu", stacked=depth == last, name=f"experts_{depth}")
            for depth, width in enumerate(self.units)
        ]
        self.gate_kernel = tf.keras.layers.Dense(num_objectives * num_experts, use_bias=False, name="gates")
        self.generator = tf.random.Generator.from_seed(seed)
        self.silent_experts = SilentExperts(num_experts)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the mixture of each objective, and its gate before gate dropout."""
        experts = self.answers(inputs)
        if training:
            self.silent_experts.update_state(experts)
        logits = tf.reshape(self.gate_kernel(inputs), [-1, self.num_objectives, self.num_experts])
        gates = used = tf.nn.softmax(logits)  # [B, T, E]
        if training and self.gate_dropout:
            used = drop_experts(gates, self.generator.uniform(tf.shape(gates)) >= self.gate_dropout)
        with tf.name_scope("mixture"):
            return tf.matmul(used, experts), gates

    def answers(self, inputs: tf.Tensor) -> tf.Tensor:
        """What every expert says of [B, I]: [B, E, U]."""
        for layer in self.experts:
            inputs = layer(inputs)
        return inputs

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "num_experts": self.num_experts,
            "units": self.units,
            "num_objectives": self.num_objectives,
            "gate_dropout": self.gate_dropout,
            "seed": self.seed,
        }
