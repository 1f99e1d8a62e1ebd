"""Table 2 of the paper in shape: kinds of selection-bias modelling (sec. 5.3, table 2), on the simulated world.

Position as an input feature, adversarial, shallow tower, anchored, and none of them, which is the control. Each arm
trains on the same logs and orders the same fresh requests (`live_experiment`); `ndcg` is of its predicted click against
true relevance.

  table2         the world whose logging ranker has an agenda of its own, and the one that orders by relevance alone
  table2_grid    how the order of input feature, shallow tower and none depends on confounding (alignment and agenda of
                 the logging ranker) and on the conflict between what is clicked and what satisfies; smaller worlds
  anchored_grid  anchored against the better of none and the shallow tower, over alignment and agenda
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.evidence.comparison import against_control, by_arm, table
from tests.evidence.example_sets import SimulatedSet, simulated_config
from tests.evidence.intervals import over_seeds, text
from tests.evidence.live_experiment import READINGS, LiveExperiment
from tests.evidence.runs import Runs
from tests.evidence.trainings import trained

CONTROL = "none"
_TOWER: dict[str, Any] = {
    "features": ["position", "device"],
    "cross": [["position", "device"]],
    "objectives": ["click", "like", "dismiss"],
}
ARMS: dict[str, dict[str, Any]] = {
    CONTROL: {"kind": "none"},
    "input_feature": {"kind": "input_feature", "features": ["position"]},
    "adversarial": {"kind": "adversarial", "features": ["position"]},
    "shallow_tower": {"kind": "shallow_tower", **_TOWER},
    # Anchored to the requests in random order, 5 % of them; and without their flag, to videos at several positions.
    "anchored": {"kind": "anchored", **_TOWER, "random_order": "random_order"},
    "anchored_no_flag": {"kind": "anchored", **_TOWER},
}
# Knobs that differ from the default world's: an alignment of 0.6, an agenda of 2 and a conflict of 1.
WORLDS: dict[str, dict[str, float]] = {"agenda": {}, "aligned": {"alignment": 1.0, "agenda": 0.0}}
GRID: dict[str, dict[str, float]] = {
    f"alignment {alignment}, agenda {agenda}": {"alignment": alignment, "agenda": agenda}
    for alignment in (0.0, 0.6, 2.0)
    for agenda in (0.0, 2.0)
} | {f"conflict {conflict}": {"conflict": conflict} for conflict in (0.0, 2.0)}
ANCHORED_GRID: dict[str, dict[str, float]] = {
    f"alignment {alignment}, agenda {agenda}": {"alignment": alignment, "agenda": agenda}
    for alignment, agenda in ((0.0, 0.0), (0.0, 1.0), (0.6, 0.0), (0.6, 2.0), (1.0, 0.0), (1.0, 1.0))
}


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of everything: requests that a world logs, and fresh ones of the live experiment."""

    requests: int = 20_000
    fresh_requests: int = 2000


TINY = Size(requests=300, fresh_requests=20)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run: worlds by name, arms by name, seeds of world and model, and how much of everything."""

    worlds: Mapping[str, Mapping[str, float]]
    arms: Sequence[str]
    seeds: Sequence[int]
    size: Size


PLANS = {
    "table2": Plan(WORLDS, tuple(ARMS), (1, 2, 3, 4, 5), Size()),
    "table2_grid": Plan(GRID, (CONTROL, "input_feature", "shallow_tower"), (1, 2, 3, 4, 5), Size(10_000)),
    "anchored_grid": Plan(ANCHORED_GRID, (CONTROL, "shallow_tower", "anchored"), (1, 2, 3, 4, 5), Size()),
}


def run(folder: Path, plan: Plan | None = None) -> dict[str, Any]:
    """Trains every arm in every world and compares.

    Args:
      folder: named as one of `PLANS`; for claims.
      plan: in place of that one.

    Returns:
      By world, each figure with the arms' differences from the control in percent; and of the NDCG, where these are
      among the arms, `tower_minus_input`, of the shallow tower and the input feature, and `anchored_minus_better`, of
      anchored and the better of none and the shallow tower.
    """
    plan = plan or PLANS[folder.name]
    settings = [
        {"world": world, "arm": arm, "seed": seed, **dataclasses.asdict(plan.size)}
        for seed in plan.seeds
        for world in plan.worlds
        for arm in plan.arms
    ]
    rows = Runs(folder).perform(settings, lambda one: _one(folder.parent, one, plan.worlds[one["world"]]))
    result = {}
    for world in plan.worlds:
        of_world = [row for row in rows if row["world"] == world]
        result[world] = against_control(of_world, CONTROL, [*READINGS, "ndcg"], relative=True)
        print(f"\n{world}\n\n{table(result[world], 2, ' %')}")
        if {"input_feature", "shallow_tower"} <= set(plan.arms):
            result[world]["tower_minus_input"] = _difference(of_world, "shallow_tower", "input_feature")
            print(f"\nshallow tower minus input feature: {text(result[world]['tower_minus_input'])}")
        if {"anchored", "shallow_tower"} <= set(plan.arms):
            result[world]["anchored_minus_better"] = _minus_better(of_world)
            print(f"\nanchored minus the better: {result[world]['anchored_minus_better']['text']}")
    return result


def _difference(rows: Sequence[dict[str, Any]], first: str, second: str) -> dict[str, Any]:
    """The difference in NDCG of two arms, paired over seeds."""
    values = by_arm(rows, "ndcg")
    return over_seeds((np.asarray(values[first]) - np.asarray(values[second])).tolist())


def _minus_better(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Anchored against the better on average, so that it is one arm and no seed's luck."""
    values = by_arm(rows, "ndcg")
    better = max((CONTROL, "shallow_tower"), key=lambda arm: np.mean(values[arm]))
    difference = _difference(rows, "anchored", better)
    return {"better": better, "difference": difference, "text": f"{better}, {text(difference)}"}


def _one(root: Path, settings: Mapping[str, Any], knobs: Mapping[str, float]) -> dict[str, Any]:
    simulated = SimulatedSet(tuple(knobs.items()), settings["seed"], settings["requests"])
    config = simulated_config(settings["seed"], bias=ARMS[settings["arm"]])
    with trained(config, simulated.folder(root) / "examples") as ranker:
        return dict(_live(simulated, settings["fresh_requests"]).measure(ranker, config))


@functools.lru_cache(maxsize=1)
def _live(simulated: SimulatedSet, requests: int) -> LiveExperiment:
    return LiveExperiment(simulated.logs(), requests)
