"""Table 1 of the paper in shape: kinds of sharing at the same multiplications (sec. 5.2, table 1).

A small and a large shared bottom, against 4 and 8 experts and PLE, each with the multiplications of one of the two.
The widths were set by `cost` alone, before any result. On the simulated world each arm trains on the same logs and
then orders the same fresh requests (`live_experiment`); on real data it is held against the test split.

  table1_simulated          a world a seed, the default one
  table1_kuairand           preset `kuairand`, a training a seed
  table1_census_income      the MMoE paper's pairs of tasks (`census`), a training a seed
  table1_census_education
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.evaluation import predict
from mmoe_ranker.examples import REQUEST_ID
from pipelines.impressions import run as build_examples
from tests.evidence import census
from tests.evidence.comparison import against_control, by_arm, table
from tests.evidence.example_sets import SimulatedSet, data_folder, public_set, simulated_config
from tests.evidence.live_experiment import READINGS, LiveExperiment
from tests.evidence.real_logs import Reading, paired_bootstrap
from tests.evidence.runs import Runs, made_once
from tests.evidence.trainings import cost, gate_health, trained

SEEDS = (1, 2, 3, 4, 5)
CONTROL = "shared_bottom_small"
# Both presets have a hidden layer of 128, five objectives and towers of 32; Census one of 128, two, and towers of 16.
_FIVE_OBJECTIVES: dict[str, dict[str, Any]] = {
    CONTROL: {"kind": "shared_bottom", "units": [163]},
    "shared_bottom_large": {"kind": "shared_bottom", "units": [290]},
    "mmoe_4": {"kind": "mmoe", "experts": 4, "units": [64]},
    "mmoe_8": {"kind": "mmoe", "experts": 8, "units": [64]},
    "mmoe_8_no_dropout": {"kind": "mmoe", "experts": 8, "units": [64], "gate_dropout": 0.0},
    "ple": {"kind": "ple", "levels": 2, "shared_experts": 4, "objective_experts": 1, "units": [44]},
}
_TWO_OBJECTIVES: dict[str, dict[str, Any]] = {
    CONTROL: {"kind": "shared_bottom", "units": [117]},
    "shared_bottom_large": {"kind": "shared_bottom", "units": [227]},
    "mmoe_4": {"kind": "mmoe", "experts": 4, "units": [32]},
    "mmoe_8": {"kind": "mmoe", "experts": 8, "units": [32]},
    "ple": {"kind": "ple", "levels": 2, "shared_experts": 4, "objective_experts": 1, "units": [33]},
}
TABLE_ARMS = (CONTROL, "shared_bottom_large", "mmoe_4", "mmoe_8", "ple")
_CENSUS_MODEL = {"hidden": [128], "tower": [16]}
_CENSUS_TRAINING = {"epochs": 5, "batch_size": 512}
# What is read of the real data sets.
_CENSUS_READ = {f"census_{pair}": [(pair, "auc"), ("never_married", "auc")] for pair in census.PAIRS}
READ = {
    "kuairand": [("click", "auc"), ("long_view", "auc"), ("like", "auc"), ("watch_time", "log_rmse")]
} | _CENSUS_READ


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of everything; `TINY` is for tests.

    Attributes:
      requests: that a simulated world logs.
      fresh_requests: of the live experiment.
      epochs: passes, or None for the preset's.
    """

    requests: int = 20_000
    fresh_requests: int = 2000
    epochs: int | None = None


FULL, TINY = Size(), Size(requests=300, fresh_requests=20, epochs=1)


def run(
    folder: Path, seeds: Sequence[int] = SEEDS, arms: Sequence[str] = TABLE_ARMS, size: Size = FULL
) -> dict[str, Any]:
    """Trains every arm with every seed on the data that the folder is named after, and compares.

    Args:
      folder: `table1_<data>`; for claims and predictions.
      seeds: of model, and of the world where it is simulated.
      arms: by name.
      size: how much.

    Returns:
      Cost of each arm; each figure with the arms' differences from the control.
    """
    data = folder.name.removeprefix("table1_")
    rows = trained_arms(folder.parent, data, arms, seeds, size)
    costs = {row["arm"]: {key: row[key] for key in ("parameters", "multiplications")} for row in rows}
    if data == "simulated":
        compared = against_control(rows, CONTROL, [*READINGS, "ndcg"], relative=True)
        print(table(compared, 2, " %"))
    else:
        compared = against_control(rows, CONTROL, [f"{name} {metric}" for name, metric in READ[data]])
        print(table(compared, 4))
        compared |= {"over_requests": _over_requests(folder, data, rows)}
    for arm, figures in costs.items():
        print(f"{arm}: {figures['parameters']:,} parameters, {figures['multiplications']:,} multiplications an example")
    return {"costs": costs, "compared": compared}


def trained_arms(
    root: Path, data: str, arms: Sequence[str], seeds: Sequence[int], size: Size = FULL
) -> list[dict[str, Any]]:
    """A row an arm and seed, trained where it is not yet (`runs`).

    Args:
      root: of all experiments.
      data: `simulated`, or a key of `READ`.
      arms: by name.
      seeds: of model and world.
      size: how much.
    """
    runs = Runs(root / f"table1_{data}")
    plan = [{"data": data, "arm": arm, "seed": seed, **dataclasses.asdict(size)} for seed in seeds for arm in arms]
    return runs.perform(plan, lambda settings: _one(root, runs.folder, settings))


def arm_config(data: str, arm: str, seed: int, epochs: int | None = None) -> Config:
    """The config of an arm: the data's own, with another kind of sharing."""
    if data.startswith("census_"):
        model = _CENSUS_MODEL | {"sharing": _TWO_OBJECTIVES[arm]}
        training = _CENSUS_TRAINING | {"seed": seed} | ({"epochs": epochs} if epochs else {})
        return census.census_config(data.removeprefix("census_"), model, **training)
    if data == "simulated":
        return simulated_config(seed, epochs, sharing=_FIVE_OBJECTIVES[arm])
    overrides = [f"training.seed={seed}", f"model.sharing={_FIVE_OBJECTIVES[arm]}"]
    overrides += [f"training.epochs={epochs}"] if epochs else []
    return load_config(data, overrides)


def _one(root: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    data, seed = settings["data"], settings["seed"]
    config = arm_config(data, settings["arm"], seed, settings["epochs"])
    if data == "simulated":
        simulated = SimulatedSet((), seed, settings["requests"])
        examples = simulated.folder(root) / "examples"
    else:
        examples = (_census(root, data) if data.startswith("census_") else public_set(root, data)) / "examples"
    with trained(config, examples) as ranker:
        measured: dict[str, Any] = cost(config, examples) | {"gates": gate_health(ranker, config, examples)}
        if data == "simulated":
            return measured | _live(simulated, settings["fresh_requests"]).measure(ranker, config)
        made = predict(ranker, examples, "test", config)
    scores = {name: made.predictions[name].astype(np.float32) for name, _ in READ[data]}
    np.savez_compressed(folder / f"{settings['arm']}-{seed}.npz", **scores)
    np.savez_compressed(folder / "test.npz", **made.labels, **{REQUEST_ID: made.columns[REQUEST_ID].astype(str)})
    for name, metric in READ[data]:
        measured[f"{name} {metric}"] = Reading(metric, made.labels[name], made.columns)(made.predictions[name])
    return measured


@functools.lru_cache(maxsize=1)
def _live(simulated: SimulatedSet, requests: int) -> LiveExperiment:
    return LiveExperiment(simulated.logs(), requests)


def _census(root: Path, data: str) -> Path:
    pair = data.removeprefix("census_")

    def make(folder: Path) -> None:
        census.convert(data_folder() / "census", pair, folder / "logs")
        sources = (str(folder / "logs" / f"{name}.parquet") for name in ("impressions", "feedback"))
        build_examples(census.census_config(pair, _CENSUS_MODEL), *sources, str(folder / "examples"), [])

    return made_once(root / "examples" / data, make)


def _over_requests(folder: Path, data: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The differences from the control with the interval of another test split: the paired bootstrap over requests."""
    test = np.load(folder / "test.npz")
    seeds = sorted({row["seed"] for row in rows})
    arms = {arm: [np.load(folder / f"{arm}-{seed}.npz") for seed in seeds] for arm in by_arm(rows, "seed")}
    result: dict[str, Any] = {}
    for name, metric in READ[data]:
        reading = Reading(metric, test[name], {REQUEST_ID: test[REQUEST_ID]})
        scores = {arm: [of_seed[name].astype(float) for of_seed in made] for arm, made in arms.items()}
        result[f"{name} {metric}"] = {
            arm: paired_bootstrap(reading, scores[arm], scores[CONTROL]) for arm in scores if arm != CONTROL
        }
    return result
