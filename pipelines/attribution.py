"""Which impression an event belongs to in time, for which objectives it counts, and the labels that come of it.

An event that names an impression's request and item counts for an objective where

    -clock_skew <= event time - impression time <= window

with both ends, in whole microseconds. The impression's time is that of its own record: of a request that is logged in
several records (a page at a time, say) the items of the second page are not early because the first was shown before.

An event is `early` where it stands before the left end, `joined` where it counts for at least one objective that names
it, else `late`; an `orphan` names no impression.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from mmoe_ranker.config import Config
from mmoe_ranker.config_objectives import BinaryObjective, RegressionObjective

OUTCOMES: tuple[str, ...] = ("joined", "late", "early", "orphan")


@dataclasses.dataclass(frozen=True)
class Events:
    """Distinct events in order of impression, name, time, value; each attribute [E].

    Attributes:
      key: integers that are equal where request and item are.
      name: place in `event_names`.
      time: UTC microseconds.
      value: float64, 0 where the event has none.
    """

    key: np.ndarray
    name: np.ndarray
    time: np.ndarray
    value: np.ndarray


@dataclasses.dataclass(frozen=True)
class Heard:
    """The events of impressions, late ones too, since they did happen, but no early ones; each attribute [H].

    Attributes:
      row: the impression.
      name: place in `event_names`.
      time: UTC microseconds; where a clock puts the event before its impression, the impression's.
    """

    row: np.ndarray
    name: np.ndarray
    time: np.ndarray


@dataclasses.dataclass(frozen=True)
class Attributed:
    """What the events say of the impressions.

    Attributes:
      labels: float64 [N] by objective, NaN where there is none.
      has_event: bool [N], whether an event joined.
      counts: `("feedback", outcome, event)`; `("feedback", "outside_window", objective)`: events of an impression that
        came after this objective's window, whether or not another objective's still held them.
      heard: what histories are made of.
    """

    labels: dict[str, np.ndarray]
    has_event: np.ndarray
    counts: Counter[tuple[str, ...]]
    heard: Heard


def event_names(config: Config) -> list[str]:
    """The events that an objective is labelled from, sorted."""
    return sorted({objective.event for objective in config.objectives})


def attribute(config: Config, events: Events, row: np.ndarray, shown: np.ndarray) -> Attributed:
    """Attributes the events of a bucket.

    Args:
      config: objectives with their windows and aggregates, and `join.clock_skew`.
      events: distinct, in their order.
      row: int64 [E], rising: the impression of each event, -1 where there is none.
      shown: int64 [N], the time of each impression in UTC microseconds.
    """
    names = event_names(config)
    hit = np.flatnonzero(row >= 0)
    row, name, value = row[hit], events.name[hit], events.value[hit]
    delay = events.time[hit] - shown[row]
    early = delay < -_micros(config.join.clock_skew)
    joined = np.zeros(len(hit), bool)
    labels: dict[str, np.ndarray] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for objective in config.objectives:
        mine = ~early & (name == names.index(objective.event))
        if objective.window is not None:
            inside = mine & (delay <= _micros(objective.window))
            counts["feedback", "outside_window", objective.name] = int(mine.sum() - inside.sum())
            mine = inside
        joined |= mine
        labels[objective.name] = _label(objective, row[mine], value[mine], len(shown))
    outcome = np.full(len(events.key), OUTCOMES.index("orphan"))
    outcome[hit] = np.select(
        [joined, early], [OUTCOMES.index("joined"), OUTCOMES.index("early")], OUTCOMES.index("late")
    )
    for place, how in enumerate(OUTCOMES):
        of_event = np.bincount(events.name[outcome == place], minlength=len(names)).tolist()
        counts.update({("feedback", how, event): count for event, count in zip(names, of_event, strict=True)})
    _mask_where_not_given(config, labels)
    heard = Heard(row[~early], name[~early], np.maximum(events.time[hit], shown[row])[~early])
    return Attributed(labels, np.bincount(row[joined], minlength=len(shown)) > 0, counts, heard)


def _label(
    objective: BinaryObjective | RegressionObjective, row: np.ndarray, value: np.ndarray, num_rows: int
) -> np.ndarray:
    """One objective's label [N] from its own events, before other objectives take it away."""
    aggregated = _aggregated(objective.aggregate, row, value, num_rows)
    if isinstance(objective, RegressionObjective):
        return np.nan_to_num(aggregated) if objective.without_event == "zero" else aggregated
    if objective.at_least is None:
        return (~np.isnan(aggregated)).astype(np.float64)
    # NaN, where there is no event, is not that much.
    return (aggregated >= objective.at_least).astype(np.float64)


def _aggregated(how: str, row: np.ndarray, value: np.ndarray, num_rows: int) -> np.ndarray:
    """One value a row [N], NaN where there is no event; `row` rises, and inside a row events go by time, then value.

    So `first` of several events at one time is the smallest, `last` the largest; `any` is the largest of all.
    """
    aggregated = np.full(num_rows, np.nan)
    if not len(row):
        return aggregated
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    if how == "sum":
        aggregated[row[starts]] = np.bincount(row, weights=value, minlength=num_rows)[row[starts]]
    elif how == "any":
        aggregated[row[starts]] = np.maximum.reduceat(value, starts)
    else:
        ends = np.append(starts[1:], len(row)) - 1
        chosen = starts if how == "first" else ends
        aggregated[row[chosen]] = value[chosen]
    return aggregated


def _mask_where_not_given(config: Config, labels: dict[str, np.ndarray]) -> None:
    """A label exists only where the whole chain of conditions holds."""
    unmasked = dict(labels)
    given = {objective.name: objective.given for objective in config.objectives}
    for name in labels:
        parent = given[name]
        while parent is not None:
            labels[name] = np.where(unmasked[parent] == 1, labels[name], np.nan)
            parent = given[parent]


def _micros(seconds: float) -> float:
    # Delays of this century are exact in float64.
    return float(np.rint(seconds * 1e6))
