"""Health of experts while they train: do gates use all of them, and do they answer at all.

`metrics.expert_health` computes the same figures with numpy, for evaluation. Shapes: B impressions, T objectives, E
experts that a gate chooses from, U units of an expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# An impression whose gate gives one expert more than this is polarised.
POLARISED = 0.95
# An expert is dead if no objective gives it this share of an equal part, 1 / E, on average.
DEAD_SHARE = 0.01
# Above 0 in every precision of the state.
_TINY = 1e-30
# Of a batch; enough to meet an expert that lives, and a reduction that costs next to nothing.
_LOOKED_AT = 128


class ExpertHealth(tf.keras.metrics.Metric):
    """What gates do with the experts, each figure a mean over the impressions since the last reset.

    Per objective k: `k_expert_i`, the mean utilisation of expert i; `k_gate_entropy`, of -sum_i g_i log g_i, in nats,
    and `k_gate_entropy_share`, of log E: 1 is an even gate; `k_gate_polarised`, the share of impressions whose
    largest utilisation is above 0.95. Over all objectives: `dead_experts`, how many have a mean utilisation below
    0.01 / E for every objective that can choose them, so that next to no gradient reaches them.

    Reference: Zhao et al. 2019, sec. 5.2.4 and fig. 5.

    Example:
      >>> health = ExpertHealth(["click", "like"], num_experts=2)
      >>> health.update_state(tf.constant([[[1.0, 0.0], [0.5, 0.5]]]))
      >>> result = health.result()
      >>> [round(float(result[name]), 2) for name in ("like_expert_0", "like_gate_entropy", "click_gate_polarised")]
      [0.5, 0.69, 1.0]

    Args:
      objectives: their T names.
      num_experts: E.
      own_experts: how many of the E, from the first, are the objective's own and no other's (named `k_own_expert_i`).
      name: of the metric.
      **kwargs: for the base metric.

    Input shape: [B, T, E], before gate dropout.
    Result: a dict of scalars.
    """

    def __init__(
        self,
        objectives: Sequence[str],
        num_experts: int,
        own_experts: int = 0,
        name: str = "expert_health",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.objectives = tuple(objectives)
        self.num_experts = num_experts
        self.own_experts = own_experts
        # Of each objective: utilisations, entropy, polarised impressions.
        self.sums = self.add_weight("sums", [len(self.objectives), num_experts + 2], initializer="zeros")
        self.count = self.add_weight("count", initializer="zeros")

    def update_state(self, gates: tf.Tensor) -> None:
        """Adds a batch."""
        gates = tf.cast(gates, self.sums.dtype)
        # Vectorised, as `xlogy` is not; 0 log 0 is 0 here too.
        logs = tf.math.log(tf.maximum(gates, _TINY))
        entropy = -tf.reduce_sum(gates * logs, axis=-1, keepdims=True)
        polarised = tf.cast(tf.reduce_max(gates, axis=-1, keepdims=True) > POLARISED, gates.dtype)
        figures = tf.concat([gates, entropy, polarised], axis=-1)  # [B, T, E + 2]
        self.sums.assign_add(tf.reduce_sum(figures, axis=0))
        self.count.assign_add(tf.cast(tf.shape(gates)[0], self.count.dtype))

    def result(self) -> dict[str, tf.Tensor]:
        """The figures by name; 0 each before the first batch."""
        means = tf.math.divide_no_nan(self.sums, self.count)
        entropy = means[:, self.num_experts : self.num_experts + 1]
        share = entropy / tf.math.log(float(max(self.num_experts, 2)))
        table = tf.concat([means[:, : self.num_experts + 1], share, means[:, self.num_experts + 1 :]], axis=1)
        names = [
            *(f"own_expert_{index}" for index in range(self.own_experts)),
            *(f"expert_{index}" for index in range(self.num_experts - self.own_experts)),
            "gate_entropy",
            "gate_entropy_share",
            "gate_polarised",
        ]
        keys = [f"{objective}_{name}" for objective in self.objectives for name in names]
        figures = dict(zip(keys, tf.unstack(tf.reshape(table, [-1]), num=len(keys)), strict=True))
        return figures | {"dead_experts": self._dead(means[:, : self.num_experts])}

    def reset_state(self) -> None:
        """Forgets all batches."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))

    def _dead(self, utilisation: tf.Tensor) -> tf.Tensor:
        unused = utilisation < DEAD_SHARE / self.num_experts
        own, shared = unused[:, : self.own_experts], tf.reduce_all(unused[:, self.own_experts :], axis=0)
        dead = tf.math.count_nonzero(own, dtype=self.sums.dtype) + tf.math.count_nonzero(shared, dtype=self.sums.dtype)
        return tf.where(self.count > 0, dead, 0.0)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "objectives": self.objectives,
            "num_experts": self.num_experts,
            "own_experts": self.own_experts,
        }


class SilentExperts(tf.keras.metrics.Metric):
    """How many experts gave nothing but zeros since the last reset: their ReLUs are dead.

    A gate that still chooses such an expert, mixes in nothing, and no gradient brings it back. Of every batch the first
    128 impressions are looked at, because an expert that lives answers most of them. The layer that owns the experts
    owns the metric and feeds it.

    Example:
      >>> silent = SilentExperts(num_experts=2)
      >>> silent.update_state(tf.constant([[[0.0, 0.0], [0.0, 0.3]]]))
      >>> int(silent.result())
      1

    Args:
      num_experts: all of them.
      name: of the metric.
      **kwargs: for the base metric.

    Input shape: [B, num_experts, U], after the ReLU.
    Result: a scalar.
    """

    def __init__(self, num_experts: int, name: str = "silent_experts", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.num_experts = num_experts
        self.sums = self.add_weight("sums", [num_experts], initializer="zeros")
        self.count = self.add_weight("count", initializer="zeros")

    def update_state(self, experts: tf.Tensor) -> None:
        """Adds a batch."""
        # Over impressions first: a reduction of whole rows runs at the speed of memory.
        largest = tf.reduce_max(tf.reduce_max(experts[:_LOOKED_AT], axis=0), axis=-1)  # [E]
        self.sums.assign_add(tf.cast(largest > 0, self.sums.dtype))
        self.count.assign_add(1.0)

    def result(self) -> tf.Tensor:
        """The number; 0 before the first batch."""
        silent = tf.math.count_nonzero(tf.equal(self.sums, 0.0), dtype=self.sums.dtype)
        return tf.where(self.count > 0, silent, 0.0)

    def reset_state(self) -> None:
        """Forgets all batches."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"num_experts": self.num_experts}


def counted_since(
    metric: ExpertHealth | SilentExperts, count_before: float, sums_before: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64] | None]:
    """What a metric has counted since a look at it, which begins anew where the metric was reset in between.

    Args:
      metric: to look at.
      count_before: its count at the look before; 0 at the first.
      sums_before: its sums then, such as [T, E + 2].

    Returns:
      Its count and sums now, and the means over what came in between, in the shape of the sums; None where nothing did.
    """
    # As tensors first: under mixed precision these are variables that cast themselves.
    count, sums = float(tf.identity(metric.count)), tf.identity(metric.sums).numpy().astype(np.float64)
    if count < count_before:
        count_before, sums_before = 0.0, np.zeros_like(sums)
    return count, sums, (sums - sums_before) / (count - count_before) if count > count_before else None
