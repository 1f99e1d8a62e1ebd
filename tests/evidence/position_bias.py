"""Does the shallow tower help, and how fast should it learn? Where relevance and examination are known.

For each seed, two worlds: one whose logging ranker has an agenda of its own, one that orders by relevance alone. In
each, several models train on the same logs, and order the same requests in random order: NDCG@10 of their click
prediction (position missing) against true relevance.

  position_bias  with the shallow tower and without; the learned bias is held against the true examination, position by
                 position
  tower_rate     the shallow tower at several rates of learning
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmoe_ranker import metrics
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.evaluation import learned_bias, predict
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID
from mmoe_ranker.simulation import WorldConfig, simulate, write_logs
from mmoe_ranker.training import train
from mmoe_ranker.workdir import Workdir
from pipelines.impressions import run as build_examples
from tests.evidence.intervals import over_seeds, text

SEEDS = (1, 2, 3, 4, 5)
REQUESTS = 20_000
WORLDS = {"agenda": {}, "aligned": {"alignment": 1.0, "agenda": 0.0}}
# By experiment, what is overridden in each model; the last is what the others are held against.
MODELS: dict[str, dict[str, list[str]]] = {
    "position_bias": {"shallow_tower": [], "none": ["model.bias={kind: none}"]},
    "tower_rate": {
        str(rate): [f"training.bias_optimizer={{name: adam, learning_rate: {rate}}}"] for rate in (0.01, 0.003, 0.001)
    },
}


def run(folder: Path, seeds: tuple[int, ...] = SEEDS, requests: int = REQUESTS) -> dict[str, Any]:
    """Trains every model in every world and compares.

    Args:
      folder: named as one of `MODELS`; for logs, examples and models; emptied first.
      seeds: of world and model.
      requests: logged by each world.

    Returns:
      NDCG@10 per world, model and seed; paired differences from the last model with intervals; Spearman correlations
      of the first model's learned bias with the true examination per device.
    """
    shutil.rmtree(folder, ignore_errors=True)
    models = MODELS[folder.name]
    *others, last = models
    result: dict[str, Any] = {}
    for name, knobs in WORLDS.items():
        runs = [_one_world(folder / f"{name}-{seed}", models, knobs, seed, requests) for seed in seeds]
        ndcg = {model: [one["ndcg"][model] for one in runs] for model in models}
        gains = {model: over_seeds(np.subtract(ndcg[model], ndcg[last]).tolist()) for model in others}
        devices = runs[0]["spearman"]
        spearman = {device: [one["spearman"][device] for one in runs] for device in devices}
        result[name] = {"ndcg@10": ndcg, f"minus_{last}": gains, "spearman": spearman}
        print(f"{name:8s} NDCG@10 {last} {np.mean(ndcg[last]):.4f}")
        for model, gain in gains.items():
            print(f"{name:8s} NDCG@10 {model} {np.mean(ndcg[model]):.4f}, difference {text(gain)}")
        print(f"{name:8s} least Spearman {min(min(values) for values in spearman.values()):.3f}")
    return result


def _one_world(
    folder: Path, models: dict[str, list[str]], knobs: dict[str, float], seed: int, requests: int
) -> dict[str, Any]:
    logged = _examples(folder, "logged", WorldConfig(**knobs), seed, requests)  # type: ignore[arg-type]
    # The same users, videos, requests and candidates, each list in random order.
    shuffled = _examples(folder, "random", WorldConfig(**knobs, random_share=1.0), seed, requests)  # type: ignore[arg-type]
    truth = pd.read_parquet(folder / "random" / "logs" / "truth" / "truth.parquet")
    relevance = truth.set_index(["request_id", "video_id"])["relevance"]
    result: dict[str, Any] = {"ndcg": {}}
    for model, overrides in models.items():
        config = load_config("watch_next", [f"training.seed={seed}", *overrides])
        train(config, logged, folder / model)
        ranker = Workdir.open(folder / model).load_ranker()
        predictions = predict(ranker, shuffled, "test", config)
        keys = pd.MultiIndex.from_arrays(
            [[value.decode() for value in predictions.columns[name]] for name in (REQUEST_ID, ITEM_ID)]
        )
        score, requests_of = predictions.predictions["click"], predictions.columns[REQUEST_ID]
        result["ndcg"][model] = metrics.ndcg(relevance.loc[keys].to_numpy(), score, requests_of, k=10).value
        if "spearman" not in result:
            result["spearman"] = _spearman_by_device(learned_bias(ranker), truth_curve(folder / "logged"))
    return result


def _examples(folder: Path, name: str, world: WorldConfig, seed: int, requests: int) -> Path:
    logs, out = folder / name / "logs", folder / name / "examples"
    write_logs(simulate(requests, seed, world), logs)
    config = load_config("watch_next")
    build_examples(config, str(logs / "impressions.parquet"), str(logs / "feedback.parquet"), str(out), [])
    return out


def truth_curve(folder: Path) -> pd.DataFrame:
    """The true examination: a row a device and position."""
    frame = pd.read_json(folder / "logs" / "truth" / "examination.json", orient="index")
    frame.columns = range(1, frame.shape[1] + 1)
    return frame


def _spearman_by_device(rows: list[dict[str, Any]], truth: pd.DataFrame) -> dict[str, float]:
    result = {}
    for device in truth.index:
        learned = {row["position"]: row["click"] for row in rows if row["device"] == device}
        curve = truth.loc[device]
        result[device] = metrics.spearman([learned[position] for position in curve.index], curve.to_numpy())
    return result
