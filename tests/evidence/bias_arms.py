"""The arms of the comparison on public logs: what differs in the model of selection bias, trained once each and kept.

Trainings lie in `build/evidence/workdirs/<data>-<arm>-<seed>` and what they predict in `predictions/`, so that figures
and tables can be made again without training.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.evaluation import learned_bias, predict
from mmoe_ranker.position_bias import Examination, examination_of, natural_interventions
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.training import train
from mmoe_ranker.workdir import Workdir
from tests.evidence.example_sets import public_set
from tests.evidence.runs import made_once

# Section `model.bias` of each arm, in place of the preset's; None leaves that as it is: a shallow tower of position,
# crossed with the device on trivago.
ARMS: dict[str, dict[str, Any] | None] = {
    "none": {"kind": "none"},
    "shallow_tower": None,
    "input_feature": {"kind": "input_feature", "features": ["position"]},
}
# What one item is, and within what it is compared with itself.
UNITS = {"clara2": ("query_url", None), "trivago": ("hotel_id", "device")}


@dataclasses.dataclass(frozen=True)
class Arm:
    """What one training says.

    Attributes:
      config: that trained.
      predictions: of the test split.
      learned_bias: rows of `evaluation.learned_bias`.
      experts: section `experts` of `training.json`.
    """

    config: Config
    predictions: Predictions
    learned_bias: list[dict[str, Any]]
    experts: dict[str, Any] | None


def arm_config(data: str, arm: str, seed: int) -> Config:
    """The preset of a data set with the arm's model of selection bias."""
    bias = ARMS[arm]
    return load_config(data, [f"training.seed={seed}", *([] if bias is None else [f"model.bias={json.dumps(bias)}"])])


def trained_arm(root: Path, data: str, arm: str, seed: int) -> Arm:
    """What an arm says, trained now if it was not yet."""
    examples = public_set(root, data) / "examples"
    return arm_of_examples(root, f"{data}-{arm}-{seed}", arm_config(data, arm, seed), examples)


def arm_of_examples(root: Path, name: str, config: Config, examples: Path) -> Arm:
    """What a config says once it has trained on examples, under a name of its own."""
    workdir = made_once(root / "workdirs" / name, functools.partial(_train, config, examples)) / "workdir"
    folder = made_once(root / "predictions" / name, functools.partial(_predict, config, examples, workdir))
    bias = json.loads((folder / "learned_bias.json").read_text(encoding="utf-8"))
    result = Workdir.open(workdir).result or {}
    return Arm(config, Predictions.load(folder / "test.parquet"), bias, result.get("experts"))


def logged_examination(root: Path, data: str) -> dict[str | None, Examination]:
    """Examination by natural interventions in the whole log, training period and test period; None is all groups."""
    log = logged_clicks(root, data)
    item, group = UNITS[data]
    columns = (log[item].to_numpy(), log["position"].to_numpy(), log["click"].to_numpy())
    contexts = None if group is None else log[group].to_numpy()
    curves: dict[str | None, Examination] = {None: examination_of(natural_interventions(*columns, contexts))}
    for name in [] if contexts is None else sorted(set(contexts)):
        curves[name] = examination_of(natural_interventions(*(column[contexts == name] for column in columns)))
    return curves


def logged_clicks(root: Path, data: str) -> pd.DataFrame:
    """The logged impressions with a column `click`."""
    logs = public_set(root, data) / "logs"
    item, key = UNITS[data][0], load_config(data).item_key
    names = dict.fromkeys(["request_id", "position", key, item, *([UNITS[data][1]] if UNITS[data][1] else [])])
    shown = pd.read_parquet(logs / "impressions.parquet", columns=list(names))
    clicks = pd.read_parquet(logs / "feedback.parquet").query("event == 'click'")
    clicked = set(zip(clicks["request_id"], clicks["item_id"].astype(str), strict=True))
    keys = zip(shown["request_id"], shown[key].astype(str), strict=True)
    return shown.assign(click=np.fromiter((one in clicked for one in keys), float, len(shown)))


def _train(config: Config, examples: Path, folder: Path) -> None:
    train(config, examples, folder / "workdir")
    tf.keras.backend.clear_session()


def _predict(config: Config, examples: Path, workdir: Path, folder: Path) -> None:
    ranker = Workdir.open(workdir).load_ranker()
    predict(ranker, examples, "test", config).save(folder / "test.parquet")
    (folder / "learned_bias.json").write_text(json.dumps(learned_bias(ranker)), encoding="utf-8")
    tf.keras.backend.clear_session()
