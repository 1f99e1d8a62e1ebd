"""Workdirs that hold a finished training and its evaluation, made of arrays: no model, no TensorFlow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, parse_config
from mmoe_ranker.evaluation_metrics import evaluate
from mmoe_ranker.metrics import ExpertHealth
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.saved_evaluation import SavedEvaluation
from tests.configs import small_config

HOSTILE = "</script><script>alert(1)</script>$x_{&"
"""A device as a log may name it."""
REQUESTS, LENGTH = 90, 12


def report_config(**changes: Any) -> Config:
    """The config of the documentation, with few replicates."""
    raw = small_config() | {"evaluation": {"bootstrap": {"replicates": 20}}} | changes
    return parse_config(raw)


def report_predictions(seed: int = 5) -> Predictions:
    """Clicks that follow predictions and positions, with missing labels, ties, and a device of a hostile name."""
    rng = np.random.default_rng(seed)
    size = REQUESTS * LENGTH
    position = np.tile(np.arange(1, LENGTH + 1), REQUESTS)
    # Coarse, so that there are ties.
    click = np.round(rng.beta(2, 6, size), 2).clip(0.01, 0.99)
    like, dismiss = (np.round(rng.beta(2, 30, size), 2).clip(0.01, 0.99) for _ in range(2))
    watch_time = np.round(rng.gamma(2.0, 30.0, size))
    clicked = rng.random(size) < click / np.sqrt(position) * 1.6
    labels = {
        "click": clicked.astype(float),
        "watch_time": np.where(clicked, watch_time * rng.gamma(4.0, 0.25, size), np.nan),
        "like": (rng.random(size) < like).astype(float),
        "dismiss": np.where(rng.random(size) < 0.1, np.nan, rng.random(size) < dismiss),
    }
    predictions = {"click": click, "watch_time": watch_time, "like": like, "dismiss": dismiss}
    devices = np.array([b"phone", b"tv", HOSTILE.encode()])
    columns = {
        "request_id": np.repeat([f"r{index}".encode() for index in range(REQUESTS)], LENGTH),
        "item_id": rng.integers(0, 40, size).astype("S4"),
        "video_id": rng.integers(0, 40, size).astype("S4"),
        "user_id": np.repeat(rng.integers(0, 30, REQUESTS), LENGTH).astype("S4"),
        "device": np.repeat(devices[rng.integers(0, 3, REQUESTS)], LENGTH),
        "position": position,
    }
    utilisation = rng.dirichlet(np.ones(4), 4)
    health = ExpertHealth(utilisation, rng.random(4), rng.random(4), np.zeros(4), 0)
    predictions = {name: _float32(values) for name, values in predictions.items()}
    seen = predictions | {"click": _float32((click / np.sqrt(position) * 1.6).clip(0.01, 0.99))}
    return Predictions(predictions, {name: _float32(values) for name, values in labels.items()}, columns, health, seen)


def evaluation_in(folder: Path, config: Config, predictions: Predictions) -> SavedEvaluation:
    """Writes the files of a workdir and of examples that a report reads beside the evaluation, and makes that."""
    workdir, examples = folder / "workdir", folder / "examples"
    workdir.mkdir(parents=True)
    examples.mkdir()
    passes = [{"metrics": {"click_auc": 0.61, "click_loss": 0.4}}, {"metrics": {"click_auc": 0.66, "click_loss": 0.38}}]
    result = {
        "steps": 120,
        "examples_per_second": 1000.0,
        "kept_pass": 1,
        "passes": passes,
        "experts": _experts(config),
    }
    (workdir / "training.json").write_text(json.dumps(result), encoding="utf-8")
    (workdir / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    (examples / "summary.json").write_text(json.dumps(_summary(config)), encoding="utf-8")
    report = {"split": "test"} | evaluate(predictions, config) | {"learned_bias": _learned_bias()}
    return SavedEvaluation(workdir, config, "test", examples, predictions, report)


def with_labels(predictions: Predictions, **labels: NDArray[np.float64]) -> Predictions:
    """The predictions with other labels."""
    return dataclasses.replace(predictions, labels=predictions.labels | labels)


def _float32(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)


def _experts(config: Config) -> dict[str, Any]:
    names = config.objective_names
    history = [{"step": step, "entropy_share": [0.9] * len(names), "similarity": 0.2} for step in (60, 120)]
    return {"objectives": names, "own_experts": 0, "similarity": np.eye(4).tolist(), "history": history}


def _learned_bias() -> list[dict[str, Any]]:
    return [
        {"position": position, "device": device, "click": -0.2 * (position or 5)}
        for position in (None, *range(1, LENGTH + 1))
        for device in ("phone", "tv", HOSTILE)
    ]


def _summary(config: Config) -> dict[str, Any]:
    """As the pipeline writes it, of what a report reads."""
    splits = {
        name: {
            "examples": 1080,
            "requests": 90,
            "first_time": f"2022-05-0{day}T17:35:12.008000Z",
            "last_time": f"2022-05-0{day + 1}T17:30:12.008000Z",
            "objectives": {objective: {"labelled": 1000, "mean": 0.125} for objective in config.objective_names},
        }
        for name, day in (("train", 1), ("validation", 2), ("test", 3))
    }
    return {
        "impressions": {
            "requests": 270,
            "read": 3300,
            "examples": 3240,
            "dead_letters": 60,
            "dead_letters_by_reason": {"impressions[].position must be an integer": 60},
        },
        "feedback": {
            "read": 900,
            "orphans": 0,
            "dead_letters": 0,
            "dead_letters_by_reason": {},
            "by_event": {"joined": {"click": 800, "like": 90}, "late": {"click": 10, "like": 0}, "ignored": {}},
        },
        "tables": {},
        "missing": {feature.name: 0 for feature in config.features} | {"duration": 1620},
        "vocabularies": {"device": {"values": 3, "too_rare": 0}},
        "splits": splits,
    }
