"""Records of both logs that break a rule, each with the reason that its dead letter gives."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from tests.pipelines.logs import request

GOOD = [request(number, ["v1", "v2", "v3"]) for number in range(20)]


def changed(change: Callable[[dict[str, Any]], Any]) -> Any:
    record = copy.deepcopy(GOOD[7])
    result = change(record)
    return result if isinstance(result, str) else record


def setting(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        *outer, last, value = path
        place: Any = record
        for key in outer:
            place = place[key]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


def text(old: str, new: str) -> Callable[[dict[str, Any]], str]:
    def change(record: dict[str, Any]) -> str:
        assert old in json.dumps(record)
        return json.dumps(record).replace(old, new, 1)

    return change


ITEM = ("impressions", 1, "item")
WHOLE_RECORDS = {
    "truncated": (lambda record: json.dumps(record)[:-20], "record: must be valid JSON"),
    "two on a line": (lambda record: json.dumps(record) * 2, "record: must be valid JSON"),
    "a list": (lambda record: "[1, 2]", "record: must be an object"),
    "a number": (lambda record: "17", "record: must be an object"),
    "lists that never end": (lambda record: "[" * 100_000, "record: must be nested at most 100 levels deep"),
    "deep in a field of nobody's": (
        lambda record: json.dumps(record)[:-1] + ', "debug": ' + "[" * 50_000 + "]" * 50_000 + "}",
        "record: must be nested at most 100 levels deep",
    ),
    "no request_id": (setting("request_id", ...), "request_id: missing"),
    "empty request_id": (setting("request_id", ""), "request_id: missing"),
    "request_id a list": (setting("request_id", ["r"]), "request_id: must be a string, an integer or a boolean"),
    "request_id a float": (setting("request_id", 1.5), "request_id: must be a string, an integer or a boolean"),
    "lone surrogate": (text('"r7"', '"\\ud800"'), "request_id: must be valid Unicode"),
    "no timestamp": (setting("timestamp", None), "timestamp: missing"),
    "timestamp a string": (setting("timestamp", "now"), "timestamp: must be a number of seconds"),
    "timestamp true": (setting("timestamp", True), "timestamp: must be a number of seconds"),
    "timestamp in ms": (
        setting("timestamp", 1651017600500),
        "timestamp: must be UTC seconds from the year 2000 to 2099",
    ),
    "timestamp NaN": (setting("timestamp", float("nan")), "timestamp: must be UTC seconds from the year 2000 to 2099"),
    "no context": (setting("context", ...), "context: missing"),
    "context a list": (setting("context", [1]), "context: must be an object"),
    "no impressions": (setting("impressions", ...), "impressions: missing"),
    "impressions an object": (setting("impressions", {}), "impressions: must be a list"),
    "empty impressions": (setting("impressions", []), "impressions: must not be empty"),
    "user a float": (setting("context", "user_id", 3.0), "user_id: must be a string, an integer or a boolean"),
    "device a list": (setting("context", "device", ["tv"]), "device: must be a string, an integer or a boolean"),
    "history a string": (setting("context", "watch_history", "v1"), "watch_history: must be a list"),
    "history with null": (
        setting("context", "watch_history", ["v1", None]),
        "watch_history: must be a list without nulls",
    ),
    "history nested": (
        setting("context", "watch_history", [["v1"]]),
        "watch_history: must be a string, an integer or a boolean",
    ),
}
ONE_IMPRESSION = {
    "impression a string": (setting("impressions", 1, "v2"), "impression: must be an object"),
    "impression null": (setting("impressions", 1, None), "impression: must be an object"),
    "no item": (setting("impressions", 1, "item", ...), "item: missing"),
    "item a string": (setting("impressions", 1, "item", "v2"), "item: must be an object"),
    "no key": (setting(*ITEM, "video_id", ...), "video_id: missing"),
    "key a float": (setting(*ITEM, "video_id", 2.0), "video_id: must be a string, an integer or a boolean"),
    "position 0": (setting("impressions", 1, "position", 0), "position: must be an integer from 1"),
    "position 1.5": (setting("impressions", 1, "position", 1.5), "position: must be an integer from 1"),
    "position a string": (setting("impressions", 1, "position", "2"), "position: must be an integer from 1"),
    "position true": (setting("impressions", 1, "position", True), "position: must be an integer from 1"),
    "position 21": (setting("impressions", 1, "position", 21), "position: must be an integer from 0 to 20"),
    "duration a string": (setting(*ITEM, "duration", "61"), "duration: must be a number"),
    "duration true": (setting(*ITEM, "duration", True), "duration: must be a number"),
    "duration NaN": (setting(*ITEM, "duration", float("nan")), "duration: must be a finite number"),
    "duration inf": (setting(*ITEM, "duration", float("inf")), "duration: must be a finite number"),
    "duration 1e39": (setting(*ITEM, "duration", 1e39), "duration: must be a finite number"),
    "duration 1e400": (text('"duration": 20.0', '"duration": 1e400'), "duration: must be a finite number"),
    "duration huge": (setting(*ITEM, "duration", 10**400), "duration: must be a finite number"),
    "duration -1": (
        setting(*ITEM, "duration", -1),
        "duration: must be greater than -1, because of its transform log1p",
    ),
    "short vector": (setting(*ITEM, "content", [1.0] * 5), "content: must have 6 numbers"),
    "vector a number": (setting(*ITEM, "content", 1.0), "content: must be a list"),
    "vector with null": (setting(*ITEM, "content", [None] + [1.0] * 5), "content: must be a list without nulls"),
    "vector with string": (setting(*ITEM, "content", ["x"] + [1.0] * 5), "content: must be a number"),
}
FEEDBACK = {
    "truncated": ('{"request_id": "r1"', "record: must be valid JSON"),
    "no event": (setting("event", ...), "event: missing"),
    "event a number": (setting("event", 5), "event: must be a string"),
    "no request": (setting("request_id", None), "request_id: missing"),
    "no item": (setting("item_id", ...), "item_id: missing"),
    "item a float": (setting("item_id", 1.5), "item_id: must be a string, an integer or a boolean"),
    "no time": (setting("timestamp", ...), "timestamp: missing"),
    "no value": (setting("value", None), "value: missing for the event of a regression objective"),
    "value a string": (setting("value", "7"), "value: must be a number"),
    "value below 0": (setting("value", -1.0), "value: must be at least 0, because of the objective's transform log1p"),
    "value 1e31": (setting("value", 1e31), "value: must be a number of at most 1e+30 in size"),
    "value NaN": (setting("value", float("nan")), "value: must be a number of at most 1e+30 in size"),
    "value huge": (setting("value", 10**400), "value: must be a number of at most 1e+30 in size"),
}
