"""One record of a log at a time: what is wrong with it, in words that can be counted.

Only records that the vectorised path did not take come here. A reason names the field and the rule, never the value,
so that equal mistakes have equal reasons.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import canonical_category, feature_field
from pipelines.canonical_columns import EARLIEST_SECONDS, LARGEST_VALUE, LATEST_SECONDS

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_NOT_THIS_CENTURY = "must be UTC seconds from the year 2000 to 2099"


class BadRecord(ValueError):
    """A record, or an impression, that cannot become an example; the message is the reason."""


@dataclasses.dataclass
class CheckedRequest:
    """What one record of the impression log holds: rows that are right, and impressions that are not with why."""

    context: dict[str, Any]
    impressions: list[dict[str, Any]]
    refused: list[tuple[str, Any]]


def check_request(config: Config, record: Any) -> CheckedRequest:
    """Checks a ranked-list record.

    Raises:
      BadRecord: nothing of the record can be used.
    """
    record = record_object(record, "record")
    request = identifier(record, "request_id")
    micros = timestamp_micros(record.get("timestamp"))
    if record.get("context") is None:
        raise BadRecord("context: missing")
    context = record_object(record["context"], "context")
    listed = record.get("impressions")
    if listed is None:
        raise BadRecord("impressions: missing")
    if not isinstance(listed, list):
        raise BadRecord("impressions: must be a list")
    if not listed:
        raise BadRecord("impressions: must not be empty")
    row = {"_request": request, "_time": micros}
    for feature in config.logged("context"):
        row[feature.name] = feature_value(config, feature, context.get(feature.name))
    checked = CheckedRequest(row, [], [])
    for index, impression in enumerate(listed):
        try:
            checked.impressions.append({"_index": index, **_impression(config, context, impression)})
        except BadRecord as reason:
            checked.refused.append((str(reason), impression))
    return checked


def check_impression_row(config: Config, row: Mapping[str, Any]) -> CheckedRequest:
    """Checks a row of a flat impression table, where request, context, impression and item stand side by side.

    Raises:
      BadRecord: the row cannot be used.
    """
    flat = dict(row)
    nested = {
        "request_id": flat.get("request_id"),
        "timestamp": flat.get("timestamp"),
        "context": flat,
        "impressions": [{**flat, "item": flat}],
    }
    checked = check_request(config, nested)
    if checked.refused:
        raise BadRecord(checked.refused[0][0])
    return checked


def _impression(config: Config, context: Mapping[str, Any], impression: Any) -> dict[str, Any]:
    impression = record_object(impression, "impression")
    if impression.get("item") is None:
        raise BadRecord("item: missing")
    item = record_object(impression["item"], "item")
    row = {
        "_item": identifier(item, config.item_key),
        "_position": _integer(impression.get("position"), "position", 1, None),
    }
    for feature in config.logged("candidate"):
        row[feature.name] = feature_value(config, feature, item.get(feature.name))
    for feature in config.side("bias"):
        value = impression.get(feature.name)
        if value is None and feature.name != "position":
            value = context.get(feature.name)
        row[feature.name] = feature_value(config, feature, value)
    return row


def check_event(config: Config, record: Any) -> dict[str, Any] | None:
    """Checks a feedback record; None where the config has no objective for its event.

    Raises:
      BadRecord: the record cannot be used.
    """
    record = record_object(record, "record")
    event = record.get("event")
    if event is None:
        raise BadRecord("event: missing")
    if not isinstance(event, str):
        raise BadRecord("event: must be a string")
    if all(objective.event != event for objective in config.objectives):
        return None
    row: dict[str, Any] = {
        "_request": identifier(record, "request_id"),
        "_item": identifier(record, "item_id"),
        "_event": event,
    }
    row["_time"] = timestamp_micros(record.get("timestamp"))
    row["_value"] = value = _event_value(record.get("value"))
    if value is None and (why := events_with_value(config).get(event)):
        raise BadRecord(f"value: missing for the event of {why}")
    if value is not None and value < 0 and (why := events_at_least_0(config).get(event)):
        raise BadRecord(f"value: must be at least 0, because of the objective's {why}")
    return row


def events_with_value(config: Config) -> dict[str, str]:
    """The events that must have a value, each with what asks for it."""
    asked = {
        o.event: "an objective with at_least" for o in config.objectives if getattr(o, "at_least", None) is not None
    }
    return asked | {o.event: "a regression objective" for o in config.objectives if o.kind == "regression"}


def events_at_least_0(config: Config) -> dict[str, str]:
    """The events whose value must not be negative, each with what asks for it."""
    events: dict[str, str] = {}
    for objective in config.objectives:
        if objective.kind == "regression" and objective.transform == "log1p":
            events[objective.event] = "transform log1p"
        elif objective.kind == "regression" and objective.loss == "weighted_logistic":
            events[objective.event] = "loss weighted_logistic"
    return events


def feature_value(config: Config, feature: Any, value: Any) -> Any:
    """The canonical value of a feature; None where it is missing.

    Raises:
      BadRecord: the value is of the wrong type, length or range.
    """
    name = feature.name
    if value is None:
        return None
    if feature.kind == "categorical":
        return _integer(value, name, 0, feature.size) if feature.is_integer else _category(value, name)
    if feature.kind == "numeric":
        number = _number(value, name, -1.0 if feature.transform == "log1p" else None)
        if name == config.training.sample_weight and number is not None and number < 0:
            raise BadRecord(f"{name}: must be at least 0, because it is the sample weight")
        return number
    if not isinstance(value, list):
        raise BadRecord(f"{name}: must be a list")
    if feature.kind == "vector":
        if len(value) != feature.size:
            raise BadRecord(f"{name}: must have {feature.size} numbers")
        return _elements(value, name, lambda element: _number(element, name, None))
    table = config.feature(feature.embedding) if feature.embedding else feature
    if feature_field(config, feature).wire == "int64":
        size = table.size  # type: ignore[union-attr]
        return _elements(value, name, lambda element: _integer(element, name, 0, size))[-feature.max_length :]
    return _elements(value, name, lambda element: _category(element, name))[-feature.max_length :]


def timestamp_micros(value: Any, name: str = "timestamp") -> int:
    """UTC seconds, of the field called `name`, to integer microseconds, rounded half to even; or a time with its zone.

    Raises:
      BadRecord: missing, not a number or time, or not in this century.
    """
    if value is None:
        raise BadRecord(f"{name}: missing")
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        micros = (value - _EPOCH) // datetime.timedelta(microseconds=1)
        if not EARLIEST_SECONDS * 1_000_000 <= micros < LATEST_SECONDS * 1_000_000:
            raise BadRecord(f"{name}: {_NOT_THIS_CENTURY}")
        return micros
    if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal):
        raise BadRecord(f"{name}: must be a number of seconds")
    if not EARLIEST_SECONDS <= value < LATEST_SECONDS:
        raise BadRecord(f"{name}: {_NOT_THIS_CENTURY}")
    return round(float(value) * 1e6)


def _elements(values: list[Any], name: str, check: Callable[[Any], Any]) -> list[Any]:
    if any(value is None for value in values):
        raise BadRecord(f"{name}: must be a list without nulls")
    return [check(value) for value in values]


def record_object(value: Any, name: str) -> Mapping[str, Any]:
    """An object of a record, called `name`.

    Raises:
      BadRecord: it is something else.
    """
    if not isinstance(value, dict):
        raise BadRecord(f"{name}: must be an object")
    return value


def identifier(record: Mapping[str, Any], name: str) -> str:
    """A category that must be there and not be empty.

    Raises:
      BadRecord: it is missing or of another type.
    """
    value = record.get(name)
    if value is None or value == "":
        raise BadRecord(f"{name}: missing")
    return _category(value, name)


def _category(value: Any, name: str) -> str:
    try:
        text = canonical_category(value)
        text.encode("utf-8")
    except InputError:
        raise BadRecord(f"{name}: must be a string, an integer or a boolean") from None
    except UnicodeEncodeError:
        raise BadRecord(f"{name}: must be valid Unicode") from None
    return text


def _integer(value: Any, name: str, low: int, high: int | None) -> int | None:
    if value is None:
        return None
    allowed = f"an integer from {low}" + ("" if high is None else f" to {high}")
    limit = np.iinfo(np.int64).max if high is None else high
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 2.0**53)
    if isinstance(value, bool) or not whole or not low <= value <= limit:
        raise BadRecord(f"{name}: must be {allowed}")
    return int(value)


def _event_value(value: Any) -> float | None:
    # Values are summed, so they stay in float64 and far from where a float32 label would overflow.
    if value is None:
        return None
    number = _float64(value, "value")
    if not abs(number) <= LARGEST_VALUE:
        raise BadRecord(f"value: must be a number of at most {LARGEST_VALUE:g} in size")
    return number + 0.0  # Makes one zero of two.


def _number(value: Any, name: str, above: float | None) -> float | None:
    if value is None:
        return None
    with np.errstate(over="ignore"):
        number = float(np.float32(_float64(value, name)))
    if not math.isfinite(number):
        raise BadRecord(f"{name}: must be a finite number")
    if above is not None and not number > above:
        raise BadRecord(f"{name}: must be greater than {above:g}, because of its transform log1p")
    return number + 0.0


def _float64(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal):
        raise BadRecord(f"{name}: must be a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf
