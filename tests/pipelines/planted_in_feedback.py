"""Faults of labels and feedback, planted in a clean log: misspelt, rare, late, repeated, or fading."""

from __future__ import annotations

import copy

from tests.pipelines.check_logs import LATE, START, Fault, Log


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


FAULTS = {
    "misspelt event": Fault(
        _misspelt_event,
        [("error", "label_constant", "like"), ("note", "events_ignored", "Likes")],
        "All 6,000 training labels of `like` are negative",
    ),
    "no clicks": Fault(
        _no_clicks,
        [("error", "label_constant", "click"), ("error", "label_never", "watch_time")],
        "No impression of the training split has a label of `watch_time` where `click` is 1",
    ),
    "constant value": Fault(
        _constant_value, [("error", "label_constant", "watch_time")], "All labels of `watch_time` are 5"
    ),
    "few positives": Fault(
        _few_positives, [("warning", "label_rare", "like")], "positives of `like` in 6,000 labelled"
    ),
    "outliers": Fault(_outliers, [("warning", "label_outliers", "watch_time")], "the largest is 1e+06"),
    "rates change": Fault(_rates_change, [("warning", "label_drift", "dismiss")], "the test split (+"),
    "feedback ends early": Fault(
        _feedback_ends_early,
        [("error", "labels_fade", "dismiss")],
        "to 0 % in the last",
    ),
    "window beyond the log": Fault(
        _window_beyond_the_log,
        [("warning", "window_not_covered", "like")],
        "for 20 % of the impressions",
    ),
    "repeated impressions": Fault(
        _repeated_impressions,
        [("warning", "impressions_duplicated", "impressions")],
        "375 impressions (4.8 %)",
    ),
    "repeated events": Fault(
        _repeated_events, [("note", "feedback_duplicated", "feedback")], "(4.8 %) are repetitions"
    ),
    "other ids": Fault(_other_ids, [("warning", "events_orphan", "dismiss")], "have no impression"),
    "late events": Fault(_late_events, [("warning", "events_late", "dismiss")], "come after the attribution window"),
    "early events": Fault(_early_events, [("warning", "events_early", "like")], "come before their request"),
    "unnamed event": Fault(_unnamed_event, [("note", "events_ignored", "share")], "7 events `share`"),
}
