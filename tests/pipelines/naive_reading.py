"""A naive double of the job's reading, checks and join, one record at a time, by the rules of the documentation.

It knows `mutation_config`'s features by heart and nothing of the pipeline.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np

from tests.configs import small_config

DEEPEST = 100


def mutation_config() -> dict[str, Any]:
    """The small config with more kinds of features: integers, a sequence of them, a plain number, an inherited bias."""
    raw = small_config()
    raw["features"] += [
        {"name": "slot", "side": "context", "kind": "categorical", "size": 9},
        {"name": "slots", "side": "context", "kind": "sequence", "embedding": "slot", "max_length": 3},
        {"name": "price", "side": "candidate", "kind": "numeric"},
        {"name": "surface", "side": "bias", "kind": "categorical", "vocabulary": "auto"},
    ]
    raw["model"]["bias"]["features"] = ["position", "device", "surface"]
    return raw


class Wrong(Exception):
    """A value that breaks a rule."""


class Reading:
    """What a log must come to: `taken` rows, and `refused` dead letters as canonical text, one count each."""

    def __init__(self) -> None:
        self.lines = 0
        self.taken: list[dict[str, Any]] = []
        self.refused: Counter[str] = Counter()
        self.ignored = 0


def read_impressions(data: bytes) -> Reading:
    """Every line of an impression log."""
    reading = Reading()
    for number, line in enumerate(_lines(data)):
        reading.lines += 1
        try:
            record = _record(line)
        except Wrong:
            reading.refused[canonical(line.decode("utf-8", "backslashreplace"))] += 1
            continue
        try:
            rows = _request(record, number)
        except Wrong:
            reading.refused[canonical(record)] += 1
            continue
        for place, impression in enumerate(record["impressions"]):
            try:
                reading.taken.append({**rows, **_impression(record["context"], impression), "index": place})
            except Wrong:
                reading.refused[canonical({**record, "impressions": [impression]})] += 1
    return reading


def read_events(data: bytes) -> Reading:
    """Every line of a feedback log."""
    reading = Reading()
    for line in _lines(data):
        reading.lines += 1
        try:
            record = _record(line)
        except Wrong:
            reading.refused[canonical(line.decode("utf-8", "backslashreplace"))] += 1
            continue
        try:
            event = _event(record)
        except Wrong:
            reading.refused[canonical(record)] += 1
            continue
        if event is None:
            reading.ignored += 1
        else:
            reading.taken.append(event)
    return reading


def canonical(record: Any) -> str:
    """A record as text that is equal where dead letters are."""
    return json.dumps(_as_letter(record), sort_keys=True)


def _as_letter(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_letter(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_letter(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _lines(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\n") if line.strip(b" \t\r\n\v\f")]


def _record(line: bytes) -> Any:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise Wrong from None
    try:
        record = json.loads(text.removeprefix("\ufeff"), parse_int=_long_integer)
    except (ValueError, RecursionError):
        raise Wrong from None
    if _depth(record) > DEEPEST:
        raise Wrong
    return record


def _long_integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 4000 else float(digits)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _request(record: Any, number: int) -> dict[str, Any]:
    _check(isinstance(record, dict))
    row: dict[str, Any] = {"request_id": _identifier(record.get("request_id")), "order": number}
    row["timestamp_micros"] = _micros(record.get("timestamp"))
    context, impressions = record.get("context"), record.get("impressions")
    _check(isinstance(context, dict) and isinstance(impressions, list) and len(impressions) > 0)
    row["user_id"] = _category(context.get("user_id"))
    row["device"] = _category(context.get("device"))
    row["watch_history"] = _sequence(context.get("watch_history"), _category, 5)
    row["slot"] = _integer(context.get("slot"), 0, 9)
    row["slots"] = _sequence(context.get("slots"), lambda slot: _integer(slot, 0, 9), 3)
    return row


def _impression(context: dict[str, Any], impression: Any) -> dict[str, Any]:
    _check(isinstance(impression, dict) and isinstance(impression.get("item"), dict))
    item = impression["item"]
    position = _integer(impression.get("position"), 1, 20)
    surface = impression.get("surface")
    content = item.get("content")
    if content is not None:
        _check(isinstance(content, list) and len(content) == 6 and None not in content)
        content = [_number(one) for one in content]
    return {
        "item_id": _identifier(item.get("video_id")),
        "video_id": _category(item.get("video_id")),
        "duration": _number(item.get("duration"), above=-1),
        "price": _number(item.get("price")),
        "content": content,
        "position": position,
        "surface": _category(context.get("surface") if surface is None else surface),
    }


def _event(record: Any) -> dict[str, Any] | None:
    _check(isinstance(record, dict) and isinstance(record.get("event"), str))
    if record["event"] not in ("click", "watch", "like", "dismiss"):
        return None
    value = record.get("value")
    if value is not None:
        _check(isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e30)
        value = float(value) + 0.0
    if record["event"] == "watch":
        _check(value is not None and value >= 0)
    return {
        "request_id": _identifier(record.get("request_id")),
        "item_id": _identifier(record.get("item_id")),
        "event": record["event"],
        "value": value,
        "micros": _micros(record.get("timestamp")),
    }


def _check(condition: bool) -> None:
    if not condition:
        raise Wrong


def _identifier(value: Any) -> str:
    _check(value is not None and value != "")
    return _category(value)


def _category(value: Any) -> Any:
    if value is None:
        return None
    _check(isinstance(value, str | bool | int))
    if isinstance(value, str):
        _check(not any("\ud800" <= letter <= "\udfff" for letter in value))
        return value
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _integer(value: Any, low: int, high: int) -> int | None:
    if value is None:
        return None
    _check(isinstance(value, int | float) and not isinstance(value, bool))
    _check(low <= value <= high and value == int(value))
    return int(value)


def _number(value: Any, above: float | None = None) -> float | None:
    if value is None:
        return None
    _check(isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300)
    with np.errstate(over="ignore", under="ignore"):
        number = float(np.float32(float(value))) + 0.0
    _check(math.isfinite(number) and (above is None or number > above))
    return number


def _sequence(value: Any, element: Any, most: int) -> list[Any] | None:
    if value is None:
        return None
    _check(isinstance(value, list) and None not in value)
    return [element(one) for one in value][-most:]


def _micros(value: Any) -> int:
    _check(isinstance(value, int | float) and not isinstance(value, bool))
    _check(946_684_800 <= value < 4_102_444_800)
    return round(value * 1e6)


def joined(
    impressions: list[dict[str, Any]], events: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The examples in no order, and how many events joined, came early, repeated one another, or found nothing."""
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    places = ("timestamp_micros", "position", "order", "index")
    for row in sorted(impressions, key=lambda row: [math.inf if row[name] is None else row[name] for name in places]):
        kept.setdefault((row["request_id"], row["item_id"]), row)
    earliest: dict[str, int] = {}
    for row in kept.values():
        earliest[row["request_id"]] = min(
            row["timestamp_micros"], earliest.get(row["request_id"], row["timestamp_micros"])
        )
    counts: Counter[str] = Counter()
    seen: dict[tuple[str, str], set[tuple[str, Any, int]]] = {}
    for event in events:
        key, said = (event["request_id"], event["item_id"]), (event["event"], event["value"], event["micros"])
        if said in seen.setdefault(key, set()):
            counts["duplicates"] += 1
        else:
            seen[key].add(said)
            counts[_outcome(kept.get(key), event)] += 1
    examples = []
    for key, row in kept.items():
        mine = {said for said in seen.get(key, set()) if said[2] >= row["timestamp_micros"]}
        names = {name for name, _, _ in mine}
        watched = [value for name, value, _ in mine if name == "watch"]
        labels = {f"{name}_label": float(name in names) for name in ("click", "like", "dismiss")}
        labels["watch_time_label"] = float(np.float32(math.fsum(watched))) if "click" in names and watched else None
        example = {name: value for name, value in row.items() if name not in ("order", "index")}
        examples.append({**example, **labels, "timestamp_micros": earliest[key[0]]})
    return examples, counts


def _outcome(row: dict[str, Any] | None, event: dict[str, Any]) -> str:
    if row is None:
        return "orphans"
    return "early" if event["micros"] < row["timestamp_micros"] else "joined"
