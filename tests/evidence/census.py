"""UCI Census-Income as logs: one request a person, of one impression, with an event for each of the tasks.

The task pairs of Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts"
(KDD 2018), sec. 6.2: income and never-married; education and never-married. The set has no time, so persons are put in
an order by chance, and the split of that order in tenths is a random split. Columns 19, 22 and 23 (tax filer,
household) all but say whether a person is married and are left out, as the instance weight is (column 24).

Columns in the order of the UCI file, from 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from pipelines.datasets.log_writing import feedback_rows, write_logs

FILE = "census-income.csv.gz"
# The pairs, by their own task; the other one is never_married. The column that the task's label is made of.
PAIRS = {"income": 41, "education": 4}
_AUXILIARY, _AUXILIARY_COLUMN = "never_married", 7
# "At least college" is taken for a degree of any of these.
_DEGREES = ("Associates", "Bachelors", "Masters", "Prof school", "Doctorate")
_NUMERIC = {0: "none", 5: "log1p", 16: "log1p", 17: "log1p", 18: "log1p", 30: "none", 39: "none"}
_LEFT_OUT = {19, 22, 23, 24}
_SPLIT_SEED = 7
# The candidate's key: any column does, since a request has one impression.
_ITEM_KEY = 8


def feature_columns(pair: str) -> list[int]:
    """The columns that are features of a task pair: all but both labels and what gives them away."""
    return [column for column in range(42) if column not in _LEFT_OUT | {PAIRS[pair], _AUXILIARY_COLUMN}]


def census_config(pair: str, model: dict[str, Any], **training: Any) -> Config:
    """The config of a task pair with a model and a training section."""
    features: list[dict[str, Any]] = []
    for column in feature_columns(pair):
        feature: dict[str, Any] = {"name": f"c{column}", "side": "candidate" if column == _ITEM_KEY else "context"}
        if column in _NUMERIC:
            feature |= {"kind": "numeric", "transform": _NUMERIC[column], "quantiles": 16, "dim": 4}
        else:
            feature |= {"kind": "categorical", "vocabulary": "auto", "dim": 4}
        features.append(feature)
    return parse_config(
        {
            "name": f"census_{pair}",
            "item_key": f"c{_ITEM_KEY}",
            "features": features,
            "objectives": [
                {"name": pair, "family": "engagement", "kind": "binary", "event": pair},
                {"name": _AUXILIARY, "family": "satisfaction", "kind": "binary", "event": _AUXILIARY},
            ],
            "model": model,
            "training": training,
            "combined_score": {"terms": {pair: {"weight": 1.0}}},
            "split": {"validation": 0.1, "test": 0.1},
        }
    )


def convert(raw_folder: Path, pair: str, out: Path) -> None:
    """Writes the logs of a task pair.

    Args:
      raw_folder: holds `census-income.csv.gz`.
      pair: `income` or `education`.
      out: new folder for `impressions.parquet` and `feedback.parquet`.
    """
    raw = pd.read_csv(raw_folder / FILE, header=None, skipinitialspace=True, dtype=str, keep_default_na=False)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(raw))
    raw = raw.iloc[order].reset_index(drop=True)
    timestamp = 1e9 + np.arange(len(raw), dtype=np.float64)
    impressions = pd.DataFrame({"request_id": [f"p{index:06d}" for index in range(len(raw))], "timestamp": timestamp})
    impressions["position"] = 1
    for column in feature_columns(pair):
        impressions[f"c{column}"] = raw[column].astype(float) if column in _NUMERIC else raw[column]
    events = {
        "income": raw[41].str.contains("50000+", regex=False),
        "education": raw[4].str.startswith(_DEGREES),
        _AUXILIARY: raw[_AUXILIARY_COLUMN] == "Never married",
    }
    masks = {name: (events[name].to_numpy(), None) for name in (pair, _AUXILIARY)}
    write_logs(impressions, feedback_rows(impressions, f"c{_ITEM_KEY}", masks, timestamp + 1.0), out)
