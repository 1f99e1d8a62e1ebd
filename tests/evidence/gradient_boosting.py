"""The gradient-boosting baseline: LightGBM, one model an objective, on the features and the split of a config.

It reads the very examples that the ranker trains on, without the bias features, which no ranker has when it serves.
Numbers go in as they are; a category as a category, or by its count in the training split where there are too many; a
sequence by its length and by how often it holds the candidate. The number of trees is chosen on the last tenth of the
training split by time, then all of the training split is fitted; the split that is reported is never looked at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import parsed_dataset
from mmoe_ranker.examples import example_layout, label_name

PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "cat_smooth": 20.0,
    "verbose": -1,
    "num_threads": 1,  # As quick as 2 on a busy machine, and the same trees everywhere.
}
MAX_TREES = 1000
_PATIENCE = 50
_MAX_CATEGORIES = 255


@dataclasses.dataclass(frozen=True)
class Columns:
    """One split, in order of time: every field of its examples as numpy, sequences as lists of arrays."""

    fields: Mapping[str, Any]

    def label(self, objective: str) -> np.ndarray:
        """float [N], NaN where missing."""
        return np.asarray(self.fields[label_name(objective)], dtype=np.float64)


def read_columns(config: Config, examples: Path, split: str) -> Columns:
    """Reads a split of a folder of examples."""
    batches = list(parsed_dataset(examples, split, config).as_numpy_iterator())
    fields: dict[str, Any] = {}
    for field in example_layout(config):
        parts = [batch[field.name] for batch in batches]
        # Batches pad sequences each to its own longest.
        fields[field.name] = [row for part in parts for row in part] if field.length is None else np.concatenate(parts)
    return Columns(fields)


def design(config: Config, train: Columns, other: Columns) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The features of both splits as columns for trees; categories and counts come from `train` alone."""
    made: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    both = (train, other)
    for feature in config.served_features:
        values = [columns.fields[feature.name] for columns in both]
        if feature.kind == "numeric":
            for made_one, column in zip(made, values, strict=True):
                made_one[feature.name] = column
        elif feature.kind == "vector":
            for made_one, column in zip(made, values, strict=True):
                made_one.update({f"{feature.name}_{place}": column[:, place] for place in range(column.shape[1])})
        elif feature.kind == "categorical":
            values = [_categories(column) for column in values]
            known = values[0].value_counts()
            few = len(known) <= _MAX_CATEGORIES
            for made_one, column in zip(made, values, strict=True):
                made_one[feature.name] = (
                    pd.Categorical(column, categories=sorted(known.index)) if few else column.map(known).fillna(0)
                )
        else:
            for made_one, columns, lists in zip(made, both, values, strict=True):
                filled = [row[row != (b"" if row.dtype == object else -1)] for row in lists]
                made_one[f"{feature.name}_length"] = [len(row) for row in filled]
                if feature.embedding == config.item_key:
                    items = columns.fields[config.item_key]
                    pairs = zip(filled, items, strict=True)
                    made_one[f"{feature.name}_of_candidate"] = [int((row == item).sum()) for row, item in pairs]
    return pd.DataFrame(made[0]), pd.DataFrame(made[1])


def _categories(column: np.ndarray) -> pd.Series:
    """Categories as strings or integers, missing ones as none."""
    series = pd.Series(column)
    if series.dtype != object:
        return series.where(series >= 0)
    return series.str.decode("utf-8").replace("", None)


def fit_predict(
    train: pd.DataFrame, labels: np.ndarray, other: pd.DataFrame, kind: str, seeds: Sequence[int]
) -> list[np.ndarray]:
    """Trains on the rows that have a label and predicts all rows of `other`.

    Args:
      train: features [N], in order of time.
      labels: float [N], NaN where missing.
      other: features [M].
      kind: `binary` or `regression`.
      seeds: of the trees; the first one's number of trees serves all.

    Returns:
      Predictions [M] a seed; of log(1 + y) for a regression.
    """
    import lightgbm

    there = np.flatnonzero(~np.isnan(labels))
    targets = labels[there] if kind == "binary" else np.log1p(labels[there])
    rows = train.iloc[there]
    parameters = PARAMETERS | {"objective": kind, "seed": seeds[0]}
    cut = int(len(there) * 0.9)
    early = lightgbm.Dataset(rows.iloc[:cut], targets[:cut])
    late = lightgbm.Dataset(rows.iloc[cut:], targets[cut:], reference=early)
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    trees = lightgbm.train(parameters, early, MAX_TREES, valid_sets=[late], callbacks=[stop]).best_iteration
    return [
        lightgbm.train(parameters | {"seed": seed}, lightgbm.Dataset(rows, targets), max(trees, 1)).predict(other)
        for seed in seeds
    ]
