"""Simulated logs, negatives sampled at 0.1, both corrections: predictions are calibrated on the whole validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.config_loading import load_config
from mmoe_ranker.dataset import training_dataset
from mmoe_ranker.evaluation import predict
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import composite_optimizer
from mmoe_ranker.simulation import simulate, write_logs
from mmoe_ranker.statistics import Statistics
from pipelines.impressions import run

SETTINGS = (
    "model={hidden: [16], sharing: {kind: shared_bottom, units: [16]}, tower: [8]}",
    "training.batch_size=256",
    "split={validation: 0.4, test: 0.1}",
)


@pytest.fixture(scope="module", params=[0, 1])
def sampled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples of a world of 1,500 requests, 30,000 impressions."""
    folder = tmp_path_factory.mktemp("sampled")
    write_logs(simulate(1500, seed=request.param), folder / "logs")
    logs = folder / "logs" / "impressions.parquet", folder / "logs" / "feedback.parquet"
    run(load_config("watch_next", [*SETTINGS, "sampling={negatives: 0.1}"]), *map(str, logs), str(folder / "examples"))
    return folder / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("correction", ["export", "weights"])
def test_predictions_are_calibrated_on_impressions_that_are_not_sampled(sampled: Path, correction: str) -> None:
    config = load_config("watch_next", [*SETTINGS, f"sampling={{negatives: 0.1, correction: {correction}}}"])
    statistics = Statistics.load(sampled)
    tf.keras.utils.set_random_seed(0)
    ranker = Ranker(config, statistics)
    ranker.compile(optimizer=composite_optimizer(ranker, config.training))
    ranker.fit(training_dataset(sampled, config, ranker.feature_rows).repeat(2), verbose=0)
    found = predict(ranker, sampled, "validation", config)
    for name in ("click", "like", "dismiss"):
        label, labels, predicted = statistics.labels[name], found.labels[name], found.predictions[name]
        positives, negatives = label.mean * label.count, (1 - label.mean) * label.count
        # Likes and dismissals are a hundred in so small a world, where a few users make the rate of a period: they are
        # held against the rate of the training period, before it was sampled; clicks against validation itself.
        before = positives / (positives + negatives / label.negatives_kept)
        observed = labels.mean() if name == "click" else before
        # Standard error of a log ratio of rates, from the counts; 4 of them are 17 % for click, 40 % for like.
        noise = np.sqrt(1 / positives + 1 / negatives + (1 / labels.sum() if name == "click" else 0.0))
        assert abs(np.log(predicted.mean() / observed)) < 4 * noise
        if correction == "export":
            # What the model would serve without the correction: more than three times too much.
            uncorrected = 1 / (1 + (1 / predicted - 1) * label.negatives_kept)
            assert np.log(uncorrected.mean() / observed) > 1.0 > 4 * noise
