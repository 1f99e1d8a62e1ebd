"""The ranker against gradient boosting on real logs: same features, same split by time, several seeds.

Two kinds of chance are kept apart. Over seeds: what another training would have given. Over requests: what another test
period would have given, by a paired bootstrap of the difference, both models on the same resampled requests.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.evaluation import predict
from mmoe_ranker.examples import REQUEST_ID
from mmoe_ranker.metrics.resampling import root_ratio
from mmoe_ranker.metrics.rows import labelled_rows
from mmoe_ranker.training import train
from mmoe_ranker.workdir import Workdir
from tests.evidence.example_sets import public_set
from tests.evidence.gradient_boosting import design, fit_predict, read_columns
from tests.evidence.intervals import over_seeds, text

SEEDS = (1, 2, 3, 4, 5)
REPLICATES = 200
_READING = ("reading",)
# What is read of each data set: trivago and clara2 click where they were shown, so only inside a position is it fair.
READ = {
    "kuairand": [("click", "auc"), ("long_view", "auc"), ("like", "auc")],
    "trivago": [("click", "auc_within"), ("click", "mrr"), ("last_click", "mrr")],
    "clara2": [("click", "auc_within"), ("click", "mrr"), ("last_click", "auc_within")],
}


def run(folder: Path, seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """Trains both on the data set that the folder is named after, and compares them on its test split.

    Args:
      folder: for models; emptied first. The examples lie beside it.
      seeds: one training each.

    Returns:
      Per objective and metric: each model's mean and interval over seeds, and their difference with the interval of the
      paired bootstrap over requests.
    """
    shutil.rmtree(folder, ignore_errors=True)
    name = folder.name
    examples = public_set(folder.parent, name) / "examples"
    config = load_config(name)
    objectives = list(dict.fromkeys(objective for objective, _ in READ[name]))
    ours = [_ranker(folder, examples, name, seed) for seed in seeds]
    labels, columns = ours[0].labels, ours[0].columns
    trees = _trees(config, examples, objectives, seeds)
    result: dict[str, Any] = {"impressions": len(columns[REQUEST_ID])}
    for objective, metric in READ[name]:
        reading = Reading(metric, labels[objective], columns)
        both = [[one.predictions[objective] for one in ours], trees[objective]]
        ranker, boosting = ([reading(scores) for scores in model] for model in both)
        entry = {"ranker": over_seeds(ranker), "gradient_boosting": over_seeds(boosting)}
        entry["difference"] = paired_bootstrap(reading, both[0], both[1])
        result[f"{objective} {metric}"] = entry
        print(
            f"{objective:12s} {metric:10s} ranker {text(entry['ranker'])}, "
            f"gradient boosting {text(entry['gradient_boosting'])}, difference {text(entry['difference'])}"
        )
    return result


def _ranker(folder: Path, examples: Path, name: str, seed: int) -> Any:
    config = load_config(name, [f"training.seed={seed}"])
    train(config, examples, folder / f"seed-{seed}")
    return predict(Workdir.open(folder / f"seed-{seed}").load_ranker(), examples, "test", config)


def _trees(
    config: Config, examples: Path, objectives: list[str], seeds: tuple[int, ...]
) -> dict[str, list[NDArray[np.float64]]]:
    train_columns, test_columns = read_columns(config, examples, "train"), read_columns(config, examples, "test")
    train_features, test_features = design(config, train_columns, test_columns)
    return {
        objective: fit_predict(train_features, train_columns.label(objective), test_features, "binary", seeds)
        for objective in objectives
    }


class Reading:
    """One metric of one objective on fixed rows, for any scores: by itself, and on requests drawn anew."""

    def __init__(self, metric: str, labels: NDArray[np.float64], columns: dict[str, NDArray[Any]]) -> None:
        self.metric = metric
        self.labels = labels
        self.positions = columns.get("position")
        requests, self.request_of_row = np.unique(columns[REQUEST_ID], return_inverse=True)
        self.num_requests = len(requests)

    def __call__(self, scores: NDArray[np.float64]) -> float:
        """The metric."""
        return float(self.statistic(scores)(np.ones((1, self.num_requests), np.uint8))[_READING][0])

    def statistic(self, scores: NDArray[np.float64]) -> metrics.Statistic:
        """The metric as a function of how often each request was drawn."""
        if self.metric in ("auc", "auc_within"):
            rows = metrics.SortedRows.best_first(labelled_rows(self.labels, scores))
            if self.metric == "auc_within":
                assert self.positions is not None
                rows = rows.within(self.positions)
            return metrics.ResampledAreas(rows, self.request_of_row, auc=_READING)
        if self.metric == "mrr":
            found = metrics.mrr(self.labels, scores, self.request_of_row)
            requests, values, formula = found.groups[found.counts], found.values[found.counts], metrics.ratio
        else:
            there = np.isfinite(self.labels)
            requests = self.request_of_row[there]
            values = np.square(np.log1p(self.labels[there]) - np.log1p(scores[there]))
            formula = root_ratio
        sums = metrics.UnitSums(self.num_requests)
        totals = [np.bincount(requests, column, self.num_requests) for column in (values, np.ones(len(values)))]
        sums.add(_READING, formula, *totals)
        return sums


def paired_bootstrap(
    reading: Reading, ours: list[NDArray[np.float64]], theirs: list[NDArray[np.float64]]
) -> dict[str, Any]:
    """Mean difference over seeds, with the 95 % interval over resampled requests."""

    def draws(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return metrics.bootstrap([reading.statistic(scores)], reading.num_requests, REPLICATES)[_READING]

    pairs = list(zip(ours, theirs, strict=True))
    low, high = np.quantile(np.mean([draws(mine) - draws(other) for mine, other in pairs], axis=0), [0.025, 0.975])
    mean = float(np.mean([reading(mine) - reading(other) for mine, other in pairs]))
    return {"mean": mean, "low": float(low), "high": float(high), "excludes_0": bool(low > 0 or high < 0)}
