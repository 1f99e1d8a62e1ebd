"""Health of a mixture of experts, from the gates that it gave: how much each objective uses each expert, how evenly.

Shapes: N impressions, T objectives, E experts that a gate chooses from.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError

_POLARISED = 0.95
_DEAD_SHARE = 0.01


class ExpertHealth(NamedTuple):
    """What gates do with the experts; all means are over impressions.

    Attributes:
      utilisation: [T, E], mean utilisation of each expert by each objective.
      entropy: [T], mean of -sum_i g_i log g_i, in nats.
      entropy_share: [T], the same as a share of log E, its largest value; NaN for one expert.
      polarised: [T], share of impressions whose largest utilisation is above 0.95.
      dead_experts: how many experts have a mean utilisation below 0.01 / E for every objective that can choose them.
    """

    utilisation: NDArray[np.float64]
    entropy: NDArray[np.float64]
    entropy_share: NDArray[np.float64]
    polarised: NDArray[np.float64]
    dead_experts: int


class ExpertHealthTotals:
    """Sums over batches of gates, from which `ExpertHealth` is made: a split needs not fit into memory.

    Example:
      >>> totals = ExpertHealthTotals()
      >>> totals.update([[[1.0, 0.0], [0.5, 0.5]]])
      >>> totals.result().utilisation.tolist()
      [[1.0, 0.0], [0.5, 0.5]]

    Args:
      own_experts: how many of the E, from the first, are the objective's own and no other's, as `ple` has them.
    """

    def __init__(self, own_experts: int = 0) -> None:
        self._own_experts = own_experts
        self._utilisation: NDArray[np.float64] = np.zeros((0, 0))
        self._entropy: NDArray[np.float64] = np.zeros(0)
        self._polarised: NDArray[np.float64] = np.zeros(0)
        self._count = 0

    def update(self, gates: ArrayLike) -> None:
        """Adds the gates of a batch, [N, T, E], each summing to 1 over E.

        Raises:
          InputError: on another shape, or gates that are no distributions.
        """
        values = np.asarray(gates, dtype=np.float64)
        if values.ndim != 3 or (self._count and values.shape[1:] != self._utilisation.shape):
            wanted = f"[N, {', '.join(map(str, self._utilisation.shape))}]" if self._count else "[N, T, E]"
            raise InputError(f"`gates` must have the shape {wanted}. Received: {list(values.shape)}.")
        sums = values.sum(axis=2)
        # Half precision leaves gates that sum to 1 within a few thousandths.
        if not (np.all(values >= 0) and np.all(np.abs(sums - 1) < 0.02)):
            raise InputError(
                "`gates` must be at least 0 and sum to 1 over experts. "
                f"Received: least {values.min():g}, sums {sums.min():g} to {sums.max():g}."
            )
        if not self._count:
            self._utilisation = np.zeros(values.shape[1:])
            self._entropy, self._polarised = np.zeros(values.shape[1]), np.zeros(values.shape[1])
        self._utilisation += values.sum(axis=0)
        logs = np.log(values, out=np.zeros_like(values), where=values > 0)
        self._entropy -= (values * logs).sum(axis=(0, 2))
        self._polarised += (values.max(axis=2) > _POLARISED).sum(axis=0)
        self._count += len(values)

    def result(self) -> ExpertHealth:
        """The health over all batches; every figure is NaN, and none dead, where there was no impression."""
        count = self._count or math.nan
        utilisation = self._utilisation / count
        num_experts = utilisation.shape[1]
        unused = utilisation < _DEAD_SHARE / max(num_experts, 1)
        own, shared = unused[:, : self._own_experts], unused[:, self._own_experts :]
        dead = int(own.sum()) + int(shared.all(axis=0).sum()) if self._count else 0
        entropy = self._entropy / count
        share = entropy / math.log(num_experts) if num_experts > 1 else np.full_like(entropy, math.nan)
        return ExpertHealth(utilisation, entropy, share, self._polarised / count, dead)


def expert_health(gates: ArrayLike, own_experts: int = 0) -> ExpertHealth:
    """The health of a mixture of experts.

    See Zhao et al. 2019, https://doi.org/10.1145/3298689.3346997, sec. 5.2.4 and fig. 5.

    Args:
      gates: [N, T, E], each summing to 1 over E, without gate dropout.
      own_experts: how many of the E, from the first, are the objective's own and no other's, as `ple` has them.

    Returns:
      Utilisation, entropy and polarisation per objective, and the number of dead experts.

    Raises:
      InputError: on another shape, or gates that are no distributions.
    """
    totals = ExpertHealthTotals(own_experts)
    totals.update(gates)
    return totals.result()
