"""What the gates did with the experts over a training, and how alike the experts became; `training.json` has it.

Looked at twenty times a pass: over the steps since the last look, each gate's utilisation and entropy, from the metric
that counts them anyway; and the similarity of the experts' answers to the workdir's sample of training impressions. The
figures are saved with each checkpoint, so that a training that was killed goes on with them.

Shapes: T objectives, E experts that a gate chooses from, F experts in all (E times T more of an objective's own).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import served_features
from mmoe_ranker.layers.expert_health import counted_since
from mmoe_ranker.metrics import expert_similarity
from mmoe_ranker.model import Ranker
from mmoe_ranker.training_progress import Progress
from mmoe_ranker.workdir import Workdir

LOOKS_A_PASS = 20


class ExpertHistory(tf.keras.callbacks.Callback):
    """Looks at the experts while they train; stands before the callback that saves. Without experts it does nothing.

    Args:
      config: its objectives.
      ranker: that trains.
      progress: of the training, one step behind while this looks; keeps what was seen.
      workdir: with the sample.
    """

    def __init__(self, config: Config, ranker: Ranker, progress: Progress, workdir: Workdir) -> None:
        super().__init__()
        self._objectives = config.objective_names
        self._ranker = ranker
        self._progress = progress
        self._every = max(1, progress.steps_per_epoch // LOOKS_A_PASS)
        self._supports_tf_logs = True
        features = ranker.feature_rows(served_features(config, workdir.sample()))

        @tf.function
        def answers() -> tf.Tensor:
            shared = ranker(features, training=False)["shared"]
            return tf.cast(ranker.sharing.answers(tf.cast(shared, ranker.sharing.compute_dtype)), tf.float32)

        self._answers = answers

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks where it is time, and at the end of the pass."""
        step = int(self._progress.step) + 1
        if step % self._every == 0 or step == self._progress.steps_per_epoch:
            self._look()

    @property
    def result(self) -> dict[str, Any] | None:
        """What was seen, for JSON; None without experts.

        `objectives`; `own_experts`, how many of the E, from the first, are an objective's own; `similarity` [F, F] of
        the weights as they are now (`metrics.expert_similarity`, None where an expert answers all alike); `history`,
        a row a look: `step` of the training, `utilisation` [T, E], `entropy_share` [T], `polarised` [T], the means over
        the steps since the look before, and `similarity`, the mean over pairs of experts.
        """
        health = self._ranker.expert_health
        if health is None:
            return None
        similarity = expert_similarity(self._answers().numpy())
        return {
            "objectives": list(self._objectives),
            "own_experts": health.own_experts,
            "similarity": [[_finite(value) for value in row] for row in similarity.tolist()],
            "history": self._progress.experts.get("history", []),
        }

    def _look(self) -> None:
        health, seen = self._ranker.expert_health, self._progress.experts
        if health is None:
            return
        count, sums, means = counted_since(
            health, seen.get("count", 0.0), np.array(seen.get("sums", np.zeros(health.sums.shape)))
        )
        if means is None:
            return
        seen |= {"count": count, "sums": sums.tolist()}  # [T, E + 2], as the means
        experts = health.num_experts
        seen.setdefault("history", []).append(
            {
                "step": self._progress.total_steps + 1,
                "utilisation": _rounded(means[:, :experts]),
                "entropy_share": _rounded(means[:, experts] / math.log(max(experts, 2))),
                "polarised": _rounded(means[:, experts + 1]),
                "similarity": _finite(_mean_of_pairs(expert_similarity(self._answers().numpy()))),
            }
        )


def _mean_of_pairs(similarity: NDArray[np.float64]) -> float:
    """Over pairs of different experts that answer at all; NaN where there is none."""
    pairs = similarity[np.triu_indices(len(similarity), 1)]
    pairs = pairs[np.isfinite(pairs)]
    return float(pairs.mean()) if len(pairs) else math.nan


def _rounded(values: NDArray[np.float64]) -> Any:
    return np.round(values, 5).tolist()


def _finite(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
