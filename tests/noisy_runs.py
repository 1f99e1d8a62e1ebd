"""Evaluations of one seeded world whose predictions are the truth with more or less noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.saved_evaluation import SavedEvaluation
from tests.configs import small_config

REQUESTS, LENGTH = 150, 8


def evaluation_of(noise: float, seed: int = 1, name: str = "a", **sections: object) -> SavedEvaluation:
    """Labels of one seeded world; predictions are the truth with more or less noise on its logits."""
    truth = np.random.default_rng(0)
    count = REQUESTS * LENGTH
    logits = {objective: truth.normal(-1, 1.5, count) for objective in ("click", "like", "dismiss")}
    labels = {name: (truth.random(count) < 1 / (1 + np.exp(-logit))).astype(float) for name, logit in logits.items()}
    watch = np.exp(truth.normal(3, 1, count))
    labels["watch_time"] = np.where(labels["click"] == 1, watch * np.exp(truth.normal(0, 0.3, count)), np.nan)
    rng = np.random.default_rng(seed)
    predictions = {name: 1 / (1 + np.exp(-logit - noise * rng.normal(size=count))) for name, logit in logits.items()}
    predictions["watch_time"] = watch * np.exp(noise * rng.normal(size=count))
    columns = {
        "request_id": np.repeat(np.array([f"r{index}".encode() for index in range(REQUESTS)], dtype=object), LENGTH),
        "item_id": np.array([f"v{index}".encode() for index in range(count)], dtype=object),
        "position": np.tile(np.arange(1, LENGTH + 1), REQUESTS),
        "device": np.repeat(truth.choice(np.array([b"phone", b"tv", b""], dtype=object), REQUESTS), LENGTH),
    }
    config = parse_config(small_config() | sections)
    order = config.objective_names
    made = Predictions({name: predictions[name] for name in order}, {name: labels[name] for name in order}, columns)
    return SavedEvaluation(Path(name), config, "test", Path("examples"), made, {})


def noisy_and_clear() -> tuple[SavedEvaluation, SavedEvaluation]:
    """A run with much noise, and one with little."""
    return evaluation_of(2.0, name="noisy"), evaluation_of(0.2, seed=2, name="clear")
