"""Faults of features, planted in a clean log: missing, constant, unknown, drifting, or telling the label."""

from __future__ import annotations

import numpy as np

from tests.pipelines.check_logs import LATE, POSITIONS, Fault, Log


def _never_present(log: Log) -> None:
    for item in log.items:
        del item["content"]


def _rarely_present(log: Log) -> None:
    for place, item in enumerate(log.items):
        if place % 125:
            item["duration"] = None


def _not_in_training(log: Log) -> None:
    for record in log.records[:LATE]:
        for impression in record["impressions"]:
            impression["item"]["duration"] = None


def _constant(log: Log) -> None:
    for item in log.items:
        item["duration"] = 10.0


def _empty_lists(log: Log) -> None:
    for record in log.records:
        record["context"]["watch_history"] = []


def _zero_vectors(log: Log) -> None:
    for item in log.items[::4]:
        item["content"] = [0.0] * 6


def _constant_numbers(log: Log) -> None:
    for item in log.items:
        item["content"][2] = 0.5


def _empty_vocabulary(log: Log) -> None:
    feature = log.feature("user_id")
    del feature["buckets"]
    feature.update(vocabulary="auto", min_count=10_000)


def _rare_values(log: Log) -> None:
    _empty_vocabulary(log)
    log.feature("user_id")["min_count"] = POSITIONS + 1
    for place, record in enumerate(log.records):
        if place % 2:
            record["context"]["user_id"] = f"once{place}"


def _unlisted_values(log: Log) -> None:
    log.feature("device")["vocabulary"] = ["phone", "web"]


def _foreign_history(log: Log) -> None:
    for record in log.records:
        record["context"]["watch_history"] = [f"video-{video}" for video in record["context"]["watch_history"]]


def _few_buckets(log: Log) -> None:
    log.feature("user_id")["buckets"] = 15


def _cut_at_limit(log: Log) -> None:
    log.config["features"].append({"name": "age", "side": "context", "kind": "categorical", "size": 30, "dim": 4})
    for place, record in enumerate(log.records):
        record["context"]["age"] = min(place % 60, 30)


def _wide_embedding(log: Log) -> None:
    log.feature("device")["dim"] = 8


def _heavy_tail(log: Log) -> None:
    log.feature("duration").update(transform="none", quantiles=None, dim=None)
    for item, value in zip(log.items, np.exp(np.random.default_rng(1).normal(4, 1.5, len(log.items))), strict=True):
        item["duration"] = float(value)


def _drift(log: Log) -> None:
    for record in log.records[LATE:]:
        for impression in record["impressions"]:
            impression["item"]["duration"] *= 1.5


def _clicked(log: Log) -> set[tuple[str, str]]:
    return {(one["request_id"], one["item_id"]) for one in log.events if one["event"] == "click"}


def _leak_of_a_category(log: Log) -> None:
    log.config["features"].append(
        {"name": "seen", "side": "candidate", "kind": "categorical", "vocabulary": "auto", "dim": 2}
    )
    clicked = _clicked(log)
    for place, record in enumerate(log.records):
        for impression in record["impressions"]:
            known = (record["request_id"], impression["item"]["video_id"]) in clicked
            # Wrong once in fifty: a leak need not be exact.
            impression["item"]["seen"] = known != (place % 50 == 0)


def _strong_category(log: Log) -> None:
    """Of each click's impression it says so three times in four; of others never."""
    _leak_of_a_category(log)
    clicked = _clicked(log)
    for place, record in enumerate(log.records):
        for impression in record["impressions"]:
            known = (record["request_id"], impression["item"]["video_id"]) in clicked
            impression["item"]["seen"] = known and place % 6 > 0


def _leak_of_a_number(log: Log) -> None:
    log.config["features"].append({"name": "watched", "side": "candidate", "kind": "numeric", "transform": "log1p"})
    watched = {(one["request_id"], one["item_id"]): one["value"] for one in log.events if one["event"] == "watch"}
    for record in log.records:
        for impression in record["impressions"]:
            impression["item"]["watched"] = watched.get((record["request_id"], impression["item"]["video_id"]), 0.0)


def _leak_by_missing(log: Log) -> None:
    clicked = _clicked(log)
    for record in log.records:
        for impression in record["impressions"]:
            if (record["request_id"], impression["item"]["video_id"]) not in clicked:
                impression["item"]["duration"] = None


def _history_of_today(log: Log) -> None:
    clicked = _clicked(log)
    for record in log.records:
        videos = [impression["item"]["video_id"] for impression in record["impressions"]]
        record["context"]["watch_history"] = [video for video in videos if (record["request_id"], video) in clicked]


FAULTS = {
    "never present": Fault(_never_present, [("error", "feature_never_present", "content")], "all 7,500 impressions"),
    "rarely present": Fault(
        _rarely_present, [("warning", "feature_rarely_present", "duration")], "0.80 % of the training"
    ),
    "not in training": Fault(
        _not_in_training,
        [("error", "feature_not_in_training", "duration")],
        "no impression of the training",
    ),
    "constant": Fault(_constant, [("warning", "feature_constant", "duration")], "same value"),
    "empty lists": Fault(_empty_lists, [("warning", "feature_constant", "watch_history")], "empty list"),
    "zero vectors": Fault(_zero_vectors, [("warning", "vector_zeros", "content")], "25 % of the impressions"),
    "constant numbers": Fault(
        _constant_numbers, [("note", "vector_constant_numbers", "content")], "1 of the 6 numbers"
    ),
    "empty vocabulary": Fault(
        _empty_vocabulary,
        [("error", "vocabulary_empty", "user_id"), ("warning", "values_unknown", "user_id")],
        "none of the 20 values",
    ),
    "rare values": Fault(
        _rare_values,
        [("warning", "vocabulary_rare", "user_id"), ("warning", "values_unknown", "user_id")],
        "leaves out 600 values of `user_id`, which are 50 %",
    ),
    "unlisted values": Fault(
        _unlisted_values, [("warning", "values_unknown", "device")], "of the train split's values of `device`"
    ),
    "foreign history": Fault(
        _foreign_history, [("warning", "values_unknown", "watch_history")], "100 % of the train split's"
    ),
    "few buckets": Fault(_few_buckets, [("warning", "hash_collisions", "user_id")], "`buckets: 15` for 20 values"),
    "cut at limit": Fault(_cut_at_limit, [("warning", "values_at_limit", "age")], "50 % of the values of `age` are 30"),
    "wide embedding": Fault(_wide_embedding, [("note", "dim_above_values", "device")], "more than the 2 values"),
    "heavy tail": Fault(_heavy_tail, [("warning", "heavy_tail", "duration")], "skewness"),
    "drift": Fault(_drift, [("warning", "drift", "duration")], "`duration` ("),
    "leaking category": Fault(_leak_of_a_category, [("error", "leak", "seen")], "orders `click` with AUC 0.9"),
    "strong category": Fault(_strong_category, [("warning", "near_leak", "seen")], "orders `click` with AUC 0.9"),
    "leaking number": Fault(
        _leak_of_a_number,
        [("error", "leak", "watched"), ("error", "leak", "watched")],
        "of the variance of `watch_time`",
    ),
    "leak by missing": Fault(_leak_by_missing, [("error", "leak", "duration")], "orders `click` with AUC 1.000"),
    "history of today": Fault(_history_of_today, [("error", "leak", "watch_history")], "AUC 1.000 (by item)"),
}
