"""One fault at a time in a log without any: `check` finds this fault, says how large it is, and finds nothing else."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.checking import feature_findings
from pipelines.checking.finding import Finding
from tests.pipelines.check_logs import NUM_REQUESTS, POSITIONS, START, Log

LATE = NUM_REQUESTS * 8 // 10
"""The first request of the validation split."""


def test_a_clean_log_has_no_finding():
    assert Log().check().findings == ()


def test_splits_by_user_are_no_drift_of_the_user():
    log = Log()
    log.config["split"] = {"by": "user_id", "validation": 0.2, "test": 0.2}
    del log.feature("user_id")["buckets"]
    log.feature("user_id")["vocabulary"] = "auto"
    report = log.check()
    assert report.figures["features"]["user_id"]["unknown"]["test"] == 1.0
    assert not [one for one in report.findings if one.about == "user_id" or one.severity == "error"]


def _expect(plant: Callable[[Log], None], *wanted: tuple[str, str, str]) -> dict[tuple[str, str], Finding]:
    log = Log()
    plant(log)
    found = log.check().findings
    assert sorted((one.severity, one.code, one.about) for one in found) == sorted(wanted), found
    assert not {one.code for one in found} - _codes()
    return {(one.code, one.about): one for one in found}


def _codes() -> set[str]:
    """Every code that the sources give a finding."""
    codes = set()
    for file in Path(feature_findings.__file__).parent.glob("*_findings.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Finding":
                code = node.args[1]
                lost = isinstance(code, ast.JoinedStr)
                codes |= {"events_orphan", "events_late", "events_early"} if lost else {ast.literal_eval(code)}
    return codes


def test_every_finding_is_planted_somewhere():
    planted = {code for _, wanted, _ in PLANTED.values() for _, code, _ in wanted}
    # Of refused records, and of millions of values: in test_check_job.
    assert _codes() - planted == {"dead_letters", "vocabulary_large"}


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


def _misspelt_event(log: Log) -> None:
    for event in log.events:
        if event["event"] == "like":
            event["event"] = "Likes"


def _no_clicks(log: Log) -> None:
    log.events = [event for event in log.events if event["event"] != "click"]


def _constant_value(log: Log) -> None:
    for event in log.events:
        if event["event"] == "watch":
            event["value"] = 5.0


def _few_positives(log: Log) -> None:
    likes = [event for event in log.events if event["event"] == "like"]
    log.events = [event for event in log.events if event["event"] != "like"] + likes[::20]


def _outliers(log: Log) -> None:
    log.objective("watch_time")["transform"] = "none"
    watches = [event for event in log.events if event["event"] == "watch"]
    watches[100]["value"] = watches[1000]["value"] = 1e6


def _rates_change(log: Log) -> None:
    for record in log.records[LATE:]:
        for impression in record["impressions"][:2]:
            event = {"request_id": record["request_id"], "item_id": impression["item"]["video_id"], "event": "dismiss"}
            log.events.append({**event, "value": None, "timestamp": record["timestamp"] + 7})


def _feedback_ends_early(log: Log) -> None:
    cut = START + 0.95 * 5 * 86_400
    log.events = [event for event in log.events if event["timestamp"] < cut or event["event"] != "dismiss"]


def _window_beyond_the_log(log: Log) -> None:
    log.objective("like")["window"] = 86_400.0


def _repeated_impressions(log: Log) -> None:
    log.records += copy.deepcopy(log.records[::20])


def _repeated_events(log: Log) -> None:
    log.events += copy.deepcopy(log.events[::20])


def _other_ids(log: Log) -> None:
    for event in [event for event in log.events if event["event"] == "dismiss"][::10]:
        event["item_id"] = event["item_id"].upper()


def _late_events(log: Log) -> None:
    log.objective("dismiss")["window"] = 600.0
    for event in [event for event in log.events if event["event"] == "dismiss"][::3]:
        event["timestamp"] += 1000


def _early_events(log: Log) -> None:
    for event in [event for event in log.events if event["event"] == "like"][::20]:
        event["timestamp"] -= 1000


def _unnamed_event(log: Log) -> None:
    log.events += [{**event, "event": "share"} for event in log.events[:7]]


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


E, W, N = "error", "warning", "note"

PLANTED: dict[str, tuple[Callable[[Log], None], list[tuple[str, str, str]], str]] = {
    "never present": (_never_present, [(E, "feature_never_present", "content")], "all 7,500 impressions"),
    "rarely present": (_rarely_present, [(W, "feature_rarely_present", "duration")], "0.80 % of the training"),
    "not in training": (
        _not_in_training,
        [(E, "feature_not_in_training", "duration")],
        "no impression of the training",
    ),
    "constant": (_constant, [(W, "feature_constant", "duration")], "same value"),
    "empty lists": (_empty_lists, [(W, "feature_constant", "watch_history")], "empty list"),
    "zero vectors": (_zero_vectors, [(W, "vector_zeros", "content")], "25 % of the impressions"),
    "constant numbers": (_constant_numbers, [(N, "vector_constant_numbers", "content")], "1 of the 6 numbers"),
    "empty vocabulary": (
        _empty_vocabulary,
        [(E, "vocabulary_empty", "user_id"), (W, "values_unknown", "user_id")],
        "none of the 20 values",
    ),
    "rare values": (
        _rare_values,
        [(W, "vocabulary_rare", "user_id"), (W, "values_unknown", "user_id")],
        "leaves out 600 values of `user_id`, which are 50 %",
    ),
    "unlisted values": (_unlisted_values, [(W, "values_unknown", "device")], "of the train split's values of `device`"),
    "foreign history": (_foreign_history, [(W, "values_unknown", "watch_history")], "100 % of the train split's"),
    "few buckets": (_few_buckets, [(W, "hash_collisions", "user_id")], "`buckets: 15` for 20 values"),
    "cut at limit": (_cut_at_limit, [(W, "values_at_limit", "age")], "50 % of the values of `age` are 30"),
    "wide embedding": (_wide_embedding, [(N, "dim_above_values", "device")], "more than the 2 values"),
    "heavy tail": (_heavy_tail, [(W, "heavy_tail", "duration")], "skewness"),
    "drift": (_drift, [(W, "drift", "duration")], "`duration` ("),
    "leaking category": (_leak_of_a_category, [(E, "leak", "seen")], "orders `click` with AUC 0.9"),
    "strong category": (_strong_category, [(W, "near_leak", "seen")], "orders `click` with AUC 0.9"),
    "leaking number": (
        _leak_of_a_number,
        [(E, "leak", "watched"), (E, "leak", "watched")],
        "of the variance of `watch_time`",
    ),
    "leak by missing": (_leak_by_missing, [(E, "leak", "duration")], "orders `click` with AUC 1.000"),
    "history of today": (_history_of_today, [(E, "leak", "watch_history")], "AUC 1.000 (by item)"),
    "misspelt event": (
        _misspelt_event,
        [(E, "label_constant", "like"), (N, "events_ignored", "Likes")],
        "All 6,000 training labels of `like` are negative",
    ),
    "no clicks": (
        _no_clicks,
        [(E, "label_constant", "click"), (E, "label_never", "watch_time")],
        "No impression of the training split has a label of `watch_time` where `click` is 1",
    ),
    "constant value": (_constant_value, [(E, "label_constant", "watch_time")], "All labels of `watch_time` are 5"),
    "few positives": (_few_positives, [(W, "label_rare", "like")], "positives of `like` in 6,000 labelled"),
    "outliers": (_outliers, [(W, "label_outliers", "watch_time")], "the largest is 1e+06"),
    "rates change": (_rates_change, [(W, "label_drift", "dismiss")], "the test split (+"),
    "feedback ends early": (
        _feedback_ends_early,
        [(E, "labels_fade", "dismiss")],
        "to 0 % in the last",
    ),
    "window beyond the log": (
        _window_beyond_the_log,
        [(W, "window_not_covered", "like")],
        "for 20 % of the impressions",
    ),
    "repeated impressions": (
        _repeated_impressions,
        [(W, "impressions_duplicated", "impressions")],
        "375 impressions (4.8 %)",
    ),
    "repeated events": (_repeated_events, [(N, "feedback_duplicated", "feedback")], "(4.8 %) are repetitions"),
    "other ids": (_other_ids, [(W, "events_orphan", "dismiss")], "have no impression"),
    "late events": (_late_events, [(W, "events_late", "dismiss")], "come after the attribution window"),
    "early events": (_early_events, [(W, "events_early", "like")], "come before their request"),
    "unnamed event": (_unnamed_event, [(N, "events_ignored", "share")], "7 events `share`"),
    "all later than training": (
        _all_later_than_training,
        [(E, "split_empty", "train"), (W, "split_empty", "validation")],
        "The training split holds no impression",
    ),
    "one hour": (_one_hour, [(W, "log_short", "impressions")], "spans 60.0 minutes"),
    "days missing": (
        _days_missing,
        [(W, "days_missing", "impressions"), (W, "time_gap", "impressions")],
        "3 days between the first and the last",
    ),
    "hours missing": (_hours_missing, [(W, "time_gap", "impressions")], "No request for 3."),
    "without positions": (_without_positions, [(N, "position_absent", "position")], "no positions"),
    "one position": (
        _one_position,
        [(E, "position_single", "position"), (W, "feature_constant", "position")],
        "stands at the same position",
    ),
    "some positions missing": (_some_positions_missing, [(W, "position_missing", "position")], "20 % of the training"),
    "position left out": (_position_left_out, [(N, "position_gaps", "position")], "the first is 3"),
    "no bias modelled": (_no_bias_modelled, [(N, "bias_not_modelled", "position")], "5 positions"),
    "fixed places": (_fixed_places, [(E, "bias_not_identifiable", "position")], "0 % of the impressions are of items"),
    "two worlds": (_two_worlds, [(W, "positions_not_connected", "position")], "Only 5"),
    "good ranker": (_good_ranker, [(W, "position_follows_relevance", "position")], "rank correlation"),
    "anchored without a flag": (
        lambda log: _anchored(log, None),
        [(W, "random_order_unflagged", "position")],
        "by convention",
    ),
    "never in random order": (
        lambda log: _anchored(log, 0.0),
        [(E, "random_order_rare", "shuffled"), (W, "feature_constant", "shuffled")],
        "0 impressions",
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_and_nothing_else(fault: str):
    plant, wanted, figure = PLANTED[fault]
    found = _expect(plant, *wanted)
    assert any(figure in one.sentence for one in found.values()), list(found.values())
    assert all(one.suggestion.endswith((".", "?")) for one in found.values())
