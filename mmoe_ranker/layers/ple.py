"""Progressive layered extraction: experts of each objective's own beside shared ones, in levels.

Shapes: B impressions, T objectives, O experts of each objective's own, S shared experts, I inputs, U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mmoe_ranker.layers.dense import ParallelDense
from mmoe_ranker.layers.expert_health import SilentExperts
from mmoe_ranker.layers.experts import drop_experts


class ExtractionLevel(tf.keras.layers.Layer):
    """One level: an objective mixes its own experts with the shared ones; the shared stream mixes all.

    towers_k = sum_i g^k_i(x_k) f_i, i over the O experts of k and the S shared ones; g^k(x_k) = softmax(W_k x_k)
    shared   = sum_i g^s_i(x_s) f_i, i over all T O + S experts;                      g^s(x_s) = softmax(W_s x_s)

    An expert sees the input of its stream: x_k if it is objective k's own, x_s if it is shared.

    Example:
      >>> level = ExtractionLevel(2, shared_experts=3, objective_experts=1, units=[8])
      >>> towers, shared, gates = level(tf.zeros([5, 16]))
      >>> towers.shape, shared.shape, gates.shape
      (TensorShape([5, 2, 8]), TensorShape([5, 8]), TensorShape([5, 2, 4]))

    Args:
      num_objectives: T.
      shared_experts: S.
      objective_experts: O.
      units: widths of each expert's layers.
      gate_dropout: probability, in training, that an expert's utilisation in a gate is set to 0.
      shared_gate: whether there is a shared output; the last level needs none.
      seed: seed of the gate dropout, whose state is saved in checkpoints.
      **kwargs: for the base layer.

    Input shape: [B, I] for all streams, or [B, T + 1, I]: the objectives' streams, then the shared one.
    Output shape: towers [B, T, U]; shared [B, U], or None without shared gate; the objectives' gates [B, T, O + S]
      before gate dropout, own experts first.
    """

    def __init__(
        self,
        num_objectives: int,
        shared_experts: int,
        objective_experts: int,
        units: Sequence[int],
        gate_dropout: float = 0.0,
        shared_gate: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_objectives = num_objectives
        self.shared_experts = shared_experts
        self.objective_experts = objective_experts
        self.units = tuple(units)
        self.gate_dropout = gate_dropout
        self.shared_gate = shared_gate
        self.seed = seed
        self.num_experts = num_objectives * objective_experts + shared_experts
        self.experts = [
            ParallelDense(self.num_experts, width, "relu", name=f"experts_{depth}")
            for depth, width in enumerate(self.units)
        ]
        self.generator = tf.random.Generator.from_seed(seed)
        self.silent_experts = SilentExperts(self.num_experts, name=f"silent_experts_{self.name}")

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the gates, whose products depend on whether the streams have met one input yet."""
        stream = "" if len(input_shape) == 2 else "t"
        choices = self.objective_experts + self.shared_experts
        self.gate_kernel = tf.keras.layers.EinsumDense(
            f"b{stream}i,tie->bte", output_shape=[self.num_objectives, choices], name="gates"
        )
        if self.shared_gate:
            self.shared_gate_kernel = tf.keras.layers.Dense(self.num_experts, use_bias=False, name="shared_gate")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]:
        """Returns the towers' inputs, the shared stream and the objectives' gates."""
        own, count = self.num_objectives * self.objective_experts, self.num_objectives
        experts = self.answers(inputs)
        if inputs.shape.rank == 2:
            objective_inputs = shared_input = inputs
        else:
            objective_inputs, shared_input = inputs[:, :count], inputs[:, count]
        if training:
            self.silent_experts.update_state(experts)
        gates = tf.nn.softmax(self.gate_kernel(objective_inputs))  # [B, T, O + S]
        used = self._dropped(gates, training)
        width = self.units[-1]
        own_experts = tf.reshape(experts[:, :own], [-1, count, self.objective_experts, width])
        towers = tf.einsum("bto,btou->btu", used[..., : self.objective_experts], own_experts)
        towers += tf.matmul(used[..., self.objective_experts :], experts[:, own:])  # [B, T, U]
        if not self.shared_gate:
            return towers, None, gates
        shared_gates = self._dropped(tf.nn.softmax(self.shared_gate_kernel(shared_input)), training)  # [B, T O + S]
        return towers, tf.einsum("be,beu->bu", shared_gates, experts), gates

    def answers(self, inputs: tf.Tensor) -> tf.Tensor:
        """What every expert says of its stream: [B, T O + S, U], the own experts of the first objective first."""
        if inputs.shape.rank == 3:
            count = self.num_objectives
            own = tf.repeat(inputs[:, :count], self.objective_experts, axis=1)
            inputs = tf.concat([own, tf.repeat(inputs[:, count:], self.shared_experts, axis=1)], axis=1)
        for layer in self.experts:
            inputs = layer(inputs)
        return inputs

    def _dropped(self, gates: tf.Tensor, training: bool | None) -> tf.Tensor:
        if not (training and self.gate_dropout):
            return gates
        return drop_experts(gates, self.generator.uniform(tf.shape(gates)) >= self.gate_dropout)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "num_objectives": self.num_objectives,
            "shared_experts": self.shared_experts,
            "objective_experts": self.objective_experts,
            "units": self.units,
            "gate_dropout": self.gate_dropout,
            "shared_gate": self.shared_gate,
            "seed": self.seed,
        }


class ProgressiveLayeredExtraction(tf.keras.layers.Layer):
    """Extraction levels in a row: what objectives share is parted from what is their own, more at each level.

    x_k^0 = x_s^0 = x;  (x_1^l ... x_T^l, x_s^l) = level_l(x_1^(l-1) ... x_T^(l-1), x_s^(l-1)), an `ExtractionLevel`.

    With one level it is customized gate control (CGC).

    Reference: Tang et al. 2020, https://doi.org/10.1145/3383313.3412236, eq. 1 to 6; gate dropout is Zhao et al. 2019,
    sec. 5.2.4.

    Example:
      >>> layer = ProgressiveLayeredExtraction(2, shared_experts=4, objective_experts=1, units=[16], num_objectives=3)
      >>> towers, gates = layer(tf.zeros([5, 8]))
      >>> towers.shape, gates.shape
      (TensorShape([5, 3, 16]), TensorShape([5, 3, 5]))

    Args:
      levels: how many levels, at least 1.
      shared_experts: S, of each level.
      objective_experts: O, of each level and objective.
      units: widths of each expert's layers.
      num_objectives: T.
      gate_dropout: probability, in training, that an expert's utilisation in a gate is set to 0.
      seed: seed of the gate dropout, whose state is saved in checkpoints.
      **kwargs: for the base layer.

    Input shape: [B, I].
    Output shape: towers [B, T, U], and the gates of the last level before gate dropout [B, T, O + S]: an objective's
      own experts first, then the shared ones.
    """

    def __init__(
        self,
        levels: int,
        shared_experts: int,
        objective_experts: int,
        units: Sequence[int],
        num_objectives: int,
        gate_dropout: float = 0.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.levels = levels
        self.shared_experts = shared_experts
        self.objective_experts = objective_experts
        self.units = tuple(units)
        self.num_objectives = num_objectives
        self.gate_dropout = gate_dropout
        self.seed = seed
        self.extraction = [
            ExtractionLevel(
                num_objectives,
                shared_experts,
                objective_experts,
                units,
                gate_dropout,
                shared_gate=level < levels - 1,
                seed=seed + level,
                name=f"level_{level}",
            )
            for level in range(levels)
        ]

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns each objective's extraction, and the gates of the last level."""
        towers, _, gates = self.extraction[-1](self._last_streams(inputs, training), training=training)
        return towers, gates

    def answers(self, inputs: tf.Tensor) -> tf.Tensor:
        """What every expert of the last level says, given [B, I]: [B, T O + S, U]."""
        return self.extraction[-1].answers(self._last_streams(inputs, training=False))

    def _last_streams(self, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        """The input of the last level: [B, I] where it is the first, else [B, T + 1, U]."""
        for level in self.extraction[:-1]:
            towers, shared, _ = level(inputs, training=training)
            inputs = tf.concat([towers, shared[:, tf.newaxis]], axis=1)
        return inputs

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "levels": self.levels,
            "shared_experts": self.shared_experts,
            "objective_experts": self.objective_experts,
            "units": self.units,
            "num_objectives": self.num_objectives,
            "gate_dropout": self.gate_dropout,
            "seed": self.seed,
        }
