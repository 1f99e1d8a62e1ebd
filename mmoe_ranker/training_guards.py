"""Guards: what makes a training worthless stops it with a sentence, before a checkpoint of it is saved.

They look every few steps, so that the device does not wait for the host at each one. Predictions are looked at on the
workdir's sample of training impressions, their bias features missing, since position would give a spread to a model
that has none of its own. Shapes: B impressions of the sample, T objectives, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import served_features
from mmoe_ranker.errors import InputError
from mmoe_ranker.layers import ExpertHealth, SilentExperts
from mmoe_ranker.layers.expert_health import counted_since
from mmoe_ranker.model import Ranker
from mmoe_ranker.statistics import Statistics
from mmoe_ranker.training_callbacks import REPORT_STEPS, flat_metrics
from mmoe_ranker.training_progress import Progress
from mmoe_ranker.workdir import Workdir

# So many looks in a row must find the same: a moment's find may be chance.
_LOOKS = 3
# Logits whose range is below this say the same of all impressions: no ranking comes of them. It is far
# below the spread that a ranker starts with or that a rare objective comes to, and above float32's rounding.
_LEAST_SPREAD = 1e-5
# A mean utilisation of less than this share of an equal part, 1 / E, in every gate: next to none. The metric
# `dead_experts` counts from 0.01 of it on, which a gate that has made up its mind may well come to.
_LEAST_UTILISATION = 1e-4
# With fewer impressions a sample says nothing about spread.
_LEAST_SAMPLE = 32


class Guards(tf.keras.callbacks.Callback):
    """Looks at the loss, at the spread of predictions and at the experts; stands before the callback that saves.

    Args:
      config: its objectives.
      ranker: that trains.
      progress: of the training, one step behind while this looks.
      workdir: with the sample, and statistics that say whose labels vary.
    """

    def __init__(self, config: Config, ranker: Ranker, progress: Progress, workdir: Workdir) -> None:
        super().__init__()
        self._progress = progress
        self._checkpoint_steps = config.training.checkpoint_steps
        self._looks: list[Callable[[], None]] = [
            ConstantPredictions(config, ranker, workdir),
            DeadExperts(ranker.metrics),
        ]
        self._supports_tf_logs = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks where it is time, and before each checkpoint."""
        step = int(self._progress.step) + 1
        if step % REPORT_STEPS == 0 or step % self._checkpoint_steps == 0:
            check_losses(logs, step)
        if step % REPORT_STEPS == 0:
            for look in self._looks:
                look()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks at the whole pass's losses."""
        check_losses(logs, int(self._progress.step))


def check_losses(logs: Mapping[str, Any], step: int) -> None:
    """Refuses a loss that is not finite: the step's, or an objective's mean over the pass, which keeps what was.

    Args:
      logs: of Keras; `loss` and `*_loss` are looked at.
      step: of the pass.

    Raises:
      InputError: one is not finite.
    """
    for name, value in flat_metrics(logs).items():
        if (name == "loss" or name.endswith("_loss")) and not math.isfinite(value):
            raise InputError(
                "The training loss must stay finite: lower `training.optimizer.learning_rate`, or look for extreme "
                f"values among numeric features and labels. Received: `{name}` {value} at step {step} of the pass."
            )


class ConstantPredictions:
    """Finds objectives whose labels vary while the ranker says the same of every impression.

    Args:
      config: objectives.
      ranker: that trains.
      workdir: whose sample is predicted.
    """

    def __init__(self, config: Config, ranker: Ranker, workdir: Workdir) -> None:
        labels, sample = Statistics.load(workdir.path).labels, workdir.sample()
        self._names = [name for name in config.objective_names if labels[name].std > 0.0]
        self._found = dict.fromkeys(self._names, 0)
        self._enough = len(sample) >= _LEAST_SAMPLE
        features = ranker.feature_rows(served_features(config, sample))

        @tf.function
        def spreads() -> tuple[tf.Tensor, tf.Tensor]:
            outputs = ranker(features, training=False)
            logits = tf.stack([outputs[f"relevance_{name}_logit"] for name in self._names], axis=-1)  # [B, T]
            return _spread(logits), tf.reduce_max(_spread(ranker.encoder(features)))

        self._spreads = spreads

    def __call__(self) -> None:
        """Looks.

        Raises:
          InputError: an objective was constant at several looks in a row.
        """
        if not self._names or not self._enough:
            return
        spreads, inputs = self._spreads()
        for name, spread in zip(self._names, spreads.numpy(), strict=True):
            constant = spread < _LEAST_SPREAD and float(inputs) > _LEAST_SPREAD
            self._found[name] = self._found[name] + 1 if constant else 0
        constant_names = [name for name, count in self._found.items() if count >= _LOOKS]
        if constant_names:
            raise InputError(
                "Predictions must differ between impressions, as labels do: lower `training.optimizer.learning_rate` "
                "(layers of ReLUs that are all 0 do not come back), or look for extreme values among numeric features. "
                f"Received: the same prediction for all impressions at {_LOOKS} looks in a row, of "
                f"{', '.join(f'`{name}`' for name in constant_names)}."
            )


def _spread(columns: tf.Tensor) -> tf.Tensor:
    """Range of each column; a standard deviation of equal numbers would be their rounding error, not 0."""
    return tf.reduce_max(columns, axis=0) - tf.reduce_min(columns, axis=0)


class DeadExperts:
    """Finds experts that answer no impression, or that no gate asks, from what their metrics counted between looks."""

    def __init__(self, metrics: Sequence[tf.keras.metrics.Metric]) -> None:
        self._metrics = [metric for metric in metrics if isinstance(metric, SilentExperts | ExpertHealth)]
        self._counted = [(0.0, np.zeros(metric.sums.shape)) for metric in self._metrics]
        self._found: list[Any] = [0 for _ in self._metrics]

    def __call__(self) -> None:
        """Looks.

        Raises:
          InputError: an expert was dead at several looks in a row.
        """
        for index, metric in enumerate(self._metrics):
            count, sums, window = counted_since(metric, *self._counted[index])
            self._counted[index] = (count, sums)
            if window is None:
                continue
            silent = isinstance(metric, SilentExperts)
            dead = window == 0.0 if silent else unused_experts(window[:, : metric.num_experts], metric.own_experts)
            self._found[index] = np.where(dead, self._found[index] + 1, 0)
            if np.any(self._found[index] >= _LOOKS):
                why = "answered every impression with zeros" if silent else "had a utilisation of about 0 in every gate"
                raise InputError(
                    "Every expert must take part: lower `training.optimizer.learning_rate`, raise "
                    "`model.sharing.gate_dropout`, or take fewer experts. Received: "
                    f"{int(np.sum(self._found[index] >= _LOOKS))} of {np.size(dead)} experts that {why} between "
                    f"{_LOOKS + 1} looks."
                )


def unused_experts(utilisation: NDArray[np.float64], own_experts: int) -> NDArray[np.bool_]:
    """Which experts next to no gate asks: an objective's own by its gate, a shared one by all.

    Args:
      utilisation: [T, E], means of the gates, an objective's own experts first.
      own_experts: O, how many of the E are the objective's own.

    Returns:
      [T O + E - O], the own experts of the first objective first.
    """
    unused = utilisation < _LEAST_UTILISATION / utilisation.shape[1]
    return np.concatenate([unused[:, :own_experts].reshape(-1), unused[:, own_experts:].all(axis=0)])
