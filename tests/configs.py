"""The config of the documentation, small, as the mapping that YAML gives; tests change one thing and look."""

from __future__ import annotations

from typing import Any

# Overrides of preset `watch_next`: one objective of each kind in place of five. What a small training takes is to trace
# its graph, and most of that is the objectives'.
TWO_OBJECTIVES = [
    "objectives=[{name: click, family: engagement, kind: binary, event: click}, "
    "{name: watch_time, family: engagement, kind: regression, event: watch, transform: log1p, given: click}]",
    "combined_score.terms={click: {weight: 1.0}, watch_time: {weight: 0.5, offset: 1.0}}",
    "model.bias.objectives=[click]",
]


def small_config() -> dict[str, Any]:
    """A new mapping each time, so that a test may change it."""
    return {
        "name": "watch_next",
        "item_key": "video_id",
        "features": [
            {"name": "user_id", "side": "context", "kind": "categorical", "buckets": 100, "dim": 8},
            {"name": "device", "side": "context", "kind": "categorical", "vocabulary": "auto", "dim": 4},
            {"name": "watch_history", "side": "context", "kind": "sequence", "embedding": "video_id", "max_length": 5},
            {
                "name": "video_id",
                "side": "candidate",
                "kind": "categorical",
                "vocabulary": "auto",
                "min_count": 2,
                "oov_buckets": 4,
                "dim": 8,
            },
            {
                "name": "duration",
                "side": "candidate",
                "kind": "numeric",
                "transform": "log1p",
                "quantiles": 3,
                "dim": 2,
            },
            {"name": "content", "side": "candidate", "kind": "vector", "size": 6},
            {"name": "position", "side": "bias", "kind": "categorical", "size": 20},
        ],
        "objectives": [
            {"name": "click", "family": "engagement", "kind": "binary", "event": "click"},
            {
                "name": "watch_time",
                "family": "engagement",
                "kind": "regression",
                "event": "watch",
                "transform": "log1p",
                "given": "click",
            },
            {"name": "like", "family": "satisfaction", "kind": "binary", "event": "like", "loss_weight": 1.0},
            {"name": "dismiss", "family": "satisfaction", "kind": "binary", "event": "dismiss"},
        ],
        "model": {
            "hidden": [16],
            "sharing": {"kind": "mmoe", "experts": 4, "units": [8], "gate_dropout": 0.1},
            "tower": [8],
            "bias": {
                "kind": "shallow_tower",
                "features": ["position", "device"],
                "cross": [["position", "device"]],
                "dropout": 0.1,
                "objectives": ["click"],
            },
        },
        "training": {
            "epochs": 1,
            "batch_size": 64,
            "embedding_optimizer": {"name": "adagrad", "learning_rate": 0.05},
            "optimizer": {"name": "adam", "learning_rate": 0.001},
        },
        "combined_score": {
            "form": "weighted_product",
            "terms": {
                "click": {"weight": 1.0},
                "watch_time": {"weight": 0.5, "offset": 1.0},
                "like": {"weight": 0.3, "offset": 0.05},
                "dismiss": {"weight": 2.0, "complement": True},
            },
        },
    }


def asof_config() -> dict[str, Any]:
    """`small_config` with two tables and two histories: the length and the country are of the time of the request."""
    raw = small_config()
    history: dict[str, Any] = {"side": "context", "kind": "sequence", "embedding": "video_id", "max_length": 5}
    raw["features"] = [feature for feature in raw["features"] if feature["name"] not in ("watch_history", "duration")]
    raw["features"] += [
        {"name": "country", "side": "context", "kind": "categorical", "vocabulary": "auto", "table": "users"},
        {"name": "duration", "side": "candidate", "kind": "numeric", "table": "videos", "column": "seconds"},
        {"name": "watch_history", **history, "history": {"event": "watch", "by": "user_id"}},
        {"name": "like_history", **history, "history": {"event": "like", "by": "user_id", "delay": 60.0}},
    ]
    raw["tables"] = [
        {"name": "users", "key": "user_id", "timestamp": "updated_at"},
        {"name": "videos", "key": "video_id", "timestamp": None},
    ]
    return raw
