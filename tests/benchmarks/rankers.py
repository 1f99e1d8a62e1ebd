"""Rankers with their batches in memory: what a training step costs where nothing has to be read."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import missing_features
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import composite_optimizer
from tests.benchmarks.synthetic import draw_columns, synthetic_statistics
from tests.benchmarks.timing import seconds


def built_ranker(config: Config) -> Ranker:
    """A compiled ranker with its variables made, as `training.train` makes it."""
    ranker = Ranker(config, synthetic_statistics(config, 1))
    ranker(ranker.feature_rows(missing_features(config)))
    ranker.compile(optimizer=composite_optimizer(ranker, config.training))
    return ranker


class InMemoryTraining:
    """A ranker and batches for it that are in memory already, as rows of tables.

    Args:
      config: of categorical and numeric features.
      steps: batches a pass.
    """

    def __init__(self, config: Config, steps: int) -> None:
        self.ranker = built_ranker(config)
        self.steps = steps
        self.batch_size = config.training.batch_size
        columns = draw_columns(config, steps * self.batch_size, seed=1)
        batches = {name: values.reshape(steps, self.batch_size) for name, values in columns.items()}
        # Row 0 of a table is "missing".
        features = {
            feature.name: batches[feature.name] + np.int32(1)
            if feature.kind == "categorical"
            else batches[feature.name]
            for feature in config.features
        }
        labels = {name: batches[f"{name}_label"] for name in config.objective_names}
        self._dataset = tf.data.Dataset.from_tensor_slices((features, labels)).prefetch(2)
        self.step_seconds()  # traces the step

    def step_seconds(self) -> float:
        """One pass through `fit`; seconds a step."""
        return seconds(lambda: self.ranker.fit(self._dataset, verbose=0)) / self.steps
