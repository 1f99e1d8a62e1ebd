"""Predictions and labels of few requests, with ties and gaps, and a config that evaluates them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.predictions import Predictions
from tests.configs import small_config

OBJECTIVES = ("click", "watch_time", "like", "dismiss")


def config_with(**evaluation: Any) -> Config:
    return parse_config(small_config() | {"evaluation": {"bootstrap": {"replicates": 0}} | evaluation})


def made_predictions(requests: int = 40, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    count = requests * 5
    click = (rng.random(count) < 0.4).astype(float)
    labels = {"click": click, "watch_time": np.where(click == 1, rng.random(count) * 60, np.nan)}
    labels |= {"like": (rng.random(count) < 0.2).astype(float), "dismiss": (rng.random(count) < 0.3).astype(float)}
    labels["like"][rng.random(count) < 0.3] = np.nan
    predictions = {name: np.round(rng.random(count) * 0.9 + 0.05, 2) for name in OBJECTIVES}  # ties
    predictions["watch_time"] *= 60
    users = rng.choice([b"u1", b"u2", b"u3", b"u4", b"u5", b""], requests)
    columns = {
        "request_id": np.repeat([f"r{index}".encode() for index in range(requests)], 5).astype(object),
        "item_id": np.array([f"v{index}".encode() for index in range(count)]),
        "position": np.tile(np.arange(1, 6), requests),
        "device": np.repeat(rng.choice([b"phone", b"tv", b""], requests), 5).astype(object),
        "user_id": np.repeat(users, 5).astype(object),
        "duration": np.where(rng.random(count) < 0.1, np.nan, rng.exponential(100, count)),
        "watch_history": rng.integers(0, 4, count),
    }
    return Predictions(predictions, labels, columns)


def rows_of(data: Predictions, rows: np.ndarray, request_ids: np.ndarray | None = None) -> Predictions:
    columns = {name: column[rows] for name, column in data.columns.items()}
    if request_ids is not None:
        columns["request_id"] = request_ids
    return Predictions(
        {name: values[rows] for name, values in data.predictions.items()},
        {name: values[rows] for name, values in data.labels.items()},
        columns,
    )


def value_at(report: Any, path: tuple[str, ...]) -> float:
    for name in path:
        report = report[name]
    report = report["value"] if isinstance(report, dict) else report
    return math.nan if report is None else report
