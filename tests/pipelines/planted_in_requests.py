"""Faults of requests, planted in a clean log: of their times, and of positions that do not tell position bias."""

from __future__ import annotations

import numpy as np

from tests.pipelines.check_logs import POSITIONS, START, Fault, Log


def _all_later_than_training(log: Log) -> None:
    log.config["split"] = {"validation_start": "2020-01-01T00:00:00Z", "test_start": "2020-01-02T00:00:00Z"}


def _one_hour(log: Log) -> None:
    for row in [*log.records, *log.events]:
        row["timestamp"] = START + (row["timestamp"] - START) / 120


def _days_missing(log: Log) -> None:
    for row in [*log.records, *log.events]:
        if row["timestamp"] >= START + 2 * 86_400:
            row["timestamp"] += 3 * 86_400


def _hours_missing(log: Log) -> None:
    inside = range(START + 30 * 3_600, START + 33 * 3_600)
    log.records = [record for record in log.records if record["timestamp"] not in inside]
    known = {record["request_id"] for record in log.records}
    log.events = [event for event in log.events if event["request_id"] in known]


def _without_positions(log: Log) -> None:
    log.config["features"] = [one for one in log.config["features"] if one["name"] != "position"]
    log.config["model"]["bias"] = {"kind": "shallow_tower", "features": ["device"], "objectives": ["click"]}
    for record in log.records:
        for impression in record["impressions"]:
            del impression["position"]


def _one_position(log: Log) -> None:
    for record in log.records:
        for impression in record["impressions"]:
            impression["position"] = 1


def _some_positions_missing(log: Log) -> None:
    for record in log.records[::5]:
        for impression in record["impressions"]:
            impression["position"] = None


def _position_left_out(log: Log) -> None:
    for record in log.records:
        for impression in record["impressions"]:
            impression["position"] += impression["position"] > 2


def _no_bias_modelled(log: Log) -> None:
    log.config["model"]["bias"] = {"kind": "none"}


def _fixed_places(log: Log) -> None:
    """Every video has its own place; clicks stay with their impressions."""
    for record in log.records:
        for impression in record["impressions"]:
            impression["position"] = int(impression["item"]["video_id"][1:]) % POSITIONS + 1


def _two_worlds(log: Log) -> None:
    """Some videos stand at places 1 and 2 only, the others at 3 to 5 only."""
    for record in log.records:
        for place, impression in enumerate(record["impressions"]):
            low = int(impression["item"]["video_id"][1:]) % 2 == 0
            impression["position"] = 1 + place % 2 if low else 3 + place % 3


def _good_ranker(log: Log) -> None:
    """Lists ordered by what is clicked anyway, with some noise; clicks as before, video by video."""
    rng = np.random.default_rng(3)
    clicks = [event["item_id"] for event in log.events if event["event"] == "click"]
    appeal = {video: clicks.count(video) for video in set(clicks)}
    for record in log.records:
        score = [appeal[one["item"]["video_id"]] + 25 * rng.normal() for one in record["impressions"]]
        for position, place in enumerate(np.argsort(score)[::-1], start=1):
            record["impressions"][place]["position"] = position


def _anchored(log: Log, share: float | None) -> None:
    bias = log.config["model"]["bias"]
    bias["kind"] = "anchored"
    if share is not None:
        bias["random_order"] = "shuffled"
        log.config["features"].append(
            {"name": "shuffled", "side": "bias", "kind": "categorical", "vocabulary": ["false", "true"]}
        )
        for place, record in enumerate(log.records):
            record["context"]["shuffled"] = place < share * len(log.records)


FAULTS = {
    "all later than training": Fault(
        _all_later_than_training,
        [("error", "split_empty", "train"), ("warning", "split_empty", "validation")],
        "The training split holds no impression",
    ),
    "one hour": Fault(_one_hour, [("warning", "log_short", "impressions")], "spans 60.0 minutes"),
    "days missing": Fault(
        _days_missing,
        [("warning", "days_missing", "impressions"), ("warning", "time_gap", "impressions")],
        "3 days between the first and the last",
    ),
    "hours missing": Fault(_hours_missing, [("warning", "time_gap", "impressions")], "No request for 3."),
    "without positions": Fault(_without_positions, [("note", "position_absent", "position")], "no positions"),
    "one position": Fault(
        _one_position,
        [("error", "position_single", "position"), ("warning", "feature_constant", "position")],
        "stands at the same position",
    ),
    "some positions missing": Fault(
        _some_positions_missing, [("warning", "position_missing", "position")], "20 % of the training"
    ),
    "position left out": Fault(_position_left_out, [("note", "position_gaps", "position")], "the first is 3"),
    "no bias modelled": Fault(_no_bias_modelled, [("note", "bias_not_modelled", "position")], "5 positions"),
    "fixed places": Fault(
        _fixed_places, [("error", "bias_not_identifiable", "position")], "0 % of the impressions are of items"
    ),
    "two worlds": Fault(_two_worlds, [("warning", "positions_not_connected", "position")], "Only 5"),
    "good ranker": Fault(_good_ranker, [("warning", "position_follows_relevance", "position")], "rank correlation"),
    "anchored without a flag": Fault(
        lambda log: _anchored(log, None),
        [("warning", "random_order_unflagged", "position")],
        "by convention",
    ),
    "never in random order": Fault(
        lambda log: _anchored(log, 0.0),
        [("error", "random_order_rare", "shuffled"), ("warning", "feature_constant", "shuffled")],
        "0 impressions",
    ),
}
