"""Made-up examples for configs of categorical and numeric features: as columns, and as a folder that trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, parse_config
from mmoe_ranker.example_encoding import encode_examples
from mmoe_ranker.examples import example_layout, label_name
from mmoe_ranker.statistics import LabelStatistics, NumericStatistics, Statistics
from pipelines.tfrecords import tfrecord_gzip

_EXAMPLES_A_PART = 50_000
_START_MICROS = 1_651_017_600_000_000


def ranking_config(
    context: tuple[int, int],
    candidate: tuple[int, int],
    rows: list[int],
    dim: int,
    model: dict[str, Any],
    **training: Any,
) -> Config:
    """Hashed categorical features `category_0`, ... and numeric ones `number_0`, ..., and four binary objectives.

    Args:
      context: how many categorical and how many numeric features are given once a request.
      candidate: the same of a candidate; its first categorical feature is the item's key.
      rows: rows of the table of each categorical feature, the context's first.
      dim: width of the tables.
      model: section `model` of the config.
      **training: section `training`.
    """
    features: list[dict[str, Any]] = []
    for side, (categorical, numeric) in {"context": context, "candidate": candidate}.items():
        first, first_numeric = (0, 0) if side == "context" else context
        for index in range(first, first + categorical):
            table = {"kind": "categorical", "buckets": rows[index], "dim": dim}
            features.append({"name": f"category_{index}", "side": side, **table})
        for index in range(first_numeric, first_numeric + numeric):
            features.append({"name": f"number_{index}", "side": side, "kind": "numeric"})
    objectives = [
        {"name": name, "family": "engagement", "kind": "binary", "event": name}
        for name in ("click", "watch", "like", "save")
    ]
    return parse_config(
        {
            "name": "benchmark",
            "item_key": f"category_{context[0]}",
            "features": features,
            "objectives": objectives,
            "model": model,
            "training": training,
            "combined_score": {"terms": {"click": {"weight": 1.0}, "like": {"weight": 0.5, "offset": 0.1}}},
        }
    )


def synthetic_statistics(config: Config, num_examples: int) -> Statistics:
    """Statistics that fit `draw_columns`: nothing is missing."""
    return Statistics(
        num_examples=num_examples,
        numeric={
            feature.name: NumericStatistics(count=num_examples, missing=0, mean=0.0, std=1.0, min=-5.0, max=5.0)
            for feature in config.features
            if feature.kind == "numeric"
        },
        labels={name: LabelStatistics(count=num_examples, mean=0.5, std=0.5) for name in config.objective_names},
        vocabularies={},
    )


def draw_columns(config: Config, count: int, seed: int) -> dict[str, np.ndarray]:
    """`count` impressions, [count] each: integers below the rows of the table, normal numbers, labels 0 and 1."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    for feature in config.features:
        if feature.kind == "categorical":
            columns[feature.name] = rng.integers(0, feature.buckets, count, dtype=np.int32)
        else:
            columns[feature.name] = rng.standard_normal(count, dtype=np.float32)
    for name in config.objective_names:
        columns[label_name(name)] = rng.integers(0, 2, count).astype(np.float32)
    return columns


def write_examples(folder: Path, config: Config, count: int, seed: int = 1) -> None:
    """A folder with a training split of `count` examples, its statistics and the marker that it is complete."""
    (folder / "train").mkdir(parents=True)
    num_parts = -(-count // _EXAMPLES_A_PART)
    for part in range(num_parts):
        first, stop = part * count // num_parts, (part + 1) * count // num_parts
        content = tfrecord_gzip(
            [encode_examples(example_layout(config), _arrow_columns(config, first, stop, seed + part))]
        )
        (folder / "train" / f"part-{part:05d}-of-{num_parts:05d}.tfrecord.gz").write_bytes(content)
    synthetic_statistics(config, count).save(folder)
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps({"splits": {"train": {"examples": count}}}), encoding="utf-8")


def _arrow_columns(config: Config, first: int, stop: int, seed: int) -> dict[str, pa.Array]:
    number = np.arange(first, stop)
    columns = {name: pa.array(values) for name, values in draw_columns(config, stop - first, seed).items()}
    columns |= {f.name: columns[f.name].cast(pa.string()) for f in config.features if f.kind == "categorical"}
    return columns | {
        "request_id": pa.array(number // 20).cast(pa.string()),
        "item_id": columns[config.item_key],
        "timestamp_micros": pa.array(_START_MICROS + number // 20 * 1_000_000),
    }
